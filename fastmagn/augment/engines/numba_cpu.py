"""The CPU engine: numba kernels (fastmagn_kernels.augmix_cpu), parallel over the images of a batch."""

import numpy as np
from torch import Tensor

from fastmagn.augment.params import ViewParams, augmix_distributions, empty_augmix
from fastmagn_kernels.augmix_cpu.rotate import make_rotations
from fastmagn_kernels.augmix_cpu.views import make_scratch, make_views_batch
from fastmagn_kernels.random import rng


def fill_views(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, float32 [V*B, H, W, 3], with the views of `images`, uint8 [B, H, W, 3], as `make_views` describes.

    Both are contiguous. The uint8 part equals Pillow's to the bit (on x86-64, where Pillow is built without fused
    multiply-add); the mixture differs from the reference engine's by less than 1e-6.
    """
    batch, height, width, _ = images.shape
    base, drawn = params.base, "augmix" in vars(params)
    augmix = params.augmix if drawn else empty_augmix(params)  # 0.2 us a view: left to the kernel's threads
    make_views_batch(
        images.numpy().reshape(batch, -1),
        height,
        width,
        params.augment.crop_padding_px,
        base.crop_x_px,
        base.crop_y_px,
        base.flip,
        base.jitter_order,
        base.brightness,
        base.contrast,
        base.saturation,
        base.angle,
        drawn,
        augmix_distributions(params.augment),
        augmix.ops,
        augmix.magnitudes,
        augmix.chain_weights,
        augmix.mix_weight,
        params.sigma,
        params.indices,
        params.epoch,
        *rng.key_words(params.seed),
        make_rotations(height, width),
        make_scratch(height, width),
        np.zeros(1, np.int64),
        out.numpy().reshape(len(out), -1),
    )

"""The CPU engine: fastmagn_kernels.augmix_cpu, parallel over the images of a batch."""

import numpy as np

from fastmagn.augment.params import ViewParams
from fastmagn_kernels import rng
from fastmagn_kernels.augmix_cpu import make_scratch, make_views_batch
from fastmagn_kernels.pixel import rotation_table


def fill_views(images: np.ndarray, params: ViewParams, out: np.ndarray) -> None:
    """Fill `out`, float32 [V*B, H, W, 3], with the views of `images`, uint8 [B, H, W, 3], as `make_views` describes.

    Both contiguous. The uint8 part equals Pillow's to the bit (on x86-64, where Pillow is built without fused
    multiply-add); mixing rounds differently from the reference by less than 1e-6.
    """
    batch, height, width, _ = images.shape
    make_views_batch(
        images.reshape(batch, -1),
        height,
        width,
        params.crop_padding_px,
        params.crop_x_px,
        params.crop_y_px,
        params.flip,
        params.jitter_order,
        params.brightness,
        params.contrast,
        params.saturation,
        params.angle,
        params.ops,
        params.magnitudes,
        params.chain_weights,
        params.mix_weight,
        params.sigma,
        params.indices,
        params.epoch,
        *rng.key_words(params.seed),
        rotation_table(),
        *make_scratch(height, width),
        out.reshape(len(out), -1),
    )

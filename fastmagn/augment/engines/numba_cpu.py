"""The CPU engine: numba kernels (fastmagn_kernels.augmix_cpu); threads share the images of a batch."""

import numpy as np
import torch
from torch import Tensor

from fastmagn.augment.engines.host_forms import form_of
from fastmagn.augment.params import ViewParams, empty_augmix
from fastmagn.augment.pixel_range import HIGHEST, LOWEST
from fastmagn_kernels import threads
from fastmagn_kernels.augmix_cpu.images import Images, change_images
from fastmagn_kernels.augmix_cpu.rotate import make_rotations
from fastmagn_kernels.augmix_cpu.views import CHAINS_AT_ONCE, Batch, make_views_batch, own_scratch


def fill_views(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, float32 [V*B, H, W, 3], with the views of `images`, uint8 [B, H, W, 3], as `make_views` describes.

    Both are contiguous. The uint8 part equals Pillow's to the bit (on x86-64, where Pillow is built without fused
    multiply-add); the mixture differs from the reference engine's by less than 1e-6.
    """
    batch, height, width, _ = images.shape
    drawn = "augmix" in vars(params)
    augmix = params.augmix if drawn else empty_augmix(params)  # 0.2 us a view: left to the kernel's threads
    work = Batch(
        images=images.numpy().reshape(batch, -1),
        indices=params.indices,
        sigma=params.sigma,
        next_image=np.zeros(1, np.int64),
        out=out.numpy().reshape(len(out), -1),
    )
    settings, base, rotations = params.settings, params.base, make_rotations(height, width)

    recipe = params.recipe

    def make_views() -> None:
        make_views_batch(work, settings, base, augmix, drawn, rotations, own_scratch(height, width), recipe)

    threads.run_on_threads(make_views, min(threads.num_threads(), batch))


def fill_augmix(images: Tensor, params: ViewParams, out: Tensor) -> bool:
    """Fill `out` with the one AugMix view of each of `images`, without a base transform.

    Args:
        images: uint8, or float32 in [0, 1], which are rounded to 256 levels; [B, C, H, W], C 1 or 3, contiguous or
            channels last.
        params: With one AugMix view; nothing else of it counts.
        out: Of the images' shape and dtype, contiguous or channels last. Levels are rounded from float32, ties to even.

    Returns:
        False if a float is out of range; not all images are then made.
    """
    height, width = params.image_size
    settings, augmix, rotations = params.settings, empty_augmix(params), make_rotations(height, width)
    work = Images(
        source=form_of(images),
        target=form_of(out),
        low=LOWEST,
        high=HIGHEST,
        indices=params.indices,
        next_image=np.zeros(1, np.int64),
        refused=np.zeros(1, np.int64),
    )
    # The fourth chain is mixed after the first three, whose sum is kept.
    num_sums = images[0].numel() if out.dtype == torch.uint8 and settings.mixture_width > CHAINS_AT_ONCE else 0

    def make_views() -> None:
        sums = np.empty(num_sums, np.float32)
        change_images(work, settings, augmix, rotations, own_scratch(height, width), sums)

    threads.run_on_threads(make_views, min(threads.num_threads(), len(images)))
    return not work.refused[0]

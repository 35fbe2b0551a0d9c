"""AugMix on the host for other loops: the numba kernel that reads and writes images as their tensors have them."""

import numpy as np
import torch
from torch import Tensor

from fastmagn.augment.engines.host_forms import form_of
from fastmagn.augment.params import ViewParams, empty_augmix
from fastmagn.augment.pixel_range import HIGHEST, LOWEST
from fastmagn_kernels import threads
from fastmagn_kernels.augmix_cpu.images import Images, change_images
from fastmagn_kernels.augmix_cpu.rotate import make_rotations
from fastmagn_kernels.augmix_cpu.views import CHAINS_AT_ONCE, own_scratch


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

"""The CPU engine: numba kernels (fastmagn_kernels.augmix_cpu); threads share the images of a batch."""

from typing import TYPE_CHECKING

import numpy as np

from fastmagn.augment.params import ViewParams, empty_augmix
from fastmagn_kernels import threads
from fastmagn_kernels.augmix_cpu.rotate import make_rotations
from fastmagn_kernels.augmix_cpu.views import Batch, make_views_batch, own_scratch

if TYPE_CHECKING:
    from torch import Tensor


def fill_views(images: "Tensor", params: ViewParams, out: "Tensor") -> None:
    """Fill `out`, float32 [V*B, H, W, 3], with the views of `images`, uint8 [B, H, W, 3], as `make_views` describes.

    Both are contiguous. The uint8 part equals Pillow's to the bit (on x86-64, where Pillow is built without fused
    multiply-add); the mixture differs from the reference engine's by less than 1e-6.
    """
    fill_arrays(images.numpy(), params, out.numpy())


def fill_arrays(images: np.ndarray, params: ViewParams, out: np.ndarray) -> None:
    """Do what `fill_views` does, with arrays: it needs no PyTorch."""
    batch, height, width, _ = images.shape
    drawn = "augmix" in vars(params)
    augmix = params.augmix if drawn else empty_augmix(params)  # 0.2 us a view: left to the kernel's threads
    work = Batch(
        images=images.reshape(batch, -1),
        indices=params.indices,
        sigma=params.sigma,
        next_image=np.zeros(1, np.int64),
        out=out.reshape(len(out), -1),
    )
    settings, base, rotations = params.settings, params.base, make_rotations(height, width)

    recipe = params.recipe

    def make_views() -> None:
        make_views_batch(work, settings, base, augmix, drawn, rotations, own_scratch(height, width), recipe)

    threads.run_on_threads(make_views, min(threads.num_threads(), batch))

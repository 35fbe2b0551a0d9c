"""AugMix of a batch, one view of each image, in the form in which the images come: without clean views."""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.augmix_cpu.forms import Forms, load_image
from fastmagn_kernels.augmix_cpu.views import augmix_view, claim
from fastmagn_kernels.compiling import jit, jit_inlined
from fastmagn_kernels.random import draws


class Images(NamedTuple):
    """The images of a batch and their views.

    Args:
        source: The images.
        target: The views, of the same kind of values, in either order.
        low: The lowest float that an image may have, float32.
        high: The highest.
        indices: Sample indices, int64 [B].
        next_image: The next image that no thread has taken, int64 [1], at first 0.
        refused: 1 as soon as an image has floats out of range, int64 [1], at first 0; the rest is then not made.
    """

    source: Forms
    target: Forms
    low: np.float32
    high: np.float32
    indices: np.ndarray
    next_image: np.ndarray
    refused: np.ndarray


@jit_inlined
def change_image(i, batch, settings, augmix, rotations, scratch, sums):
    """Make the view of image `i`; the arguments are those of `change_images`."""
    target = batch.target
    if not load_image(i, batch.source, batch.low, batch.high, scratch.rows):
        batch.refused[0] = 1
        return
    draws.draw_augmix(i, batch.indices, settings, augmix)
    in_floats = target.floats.size > 0
    levels = scratch.table[:0] if in_floats else target.levels[i]
    values = target.floats[i] if in_floats else sums
    augmix_view(0, i, 0, settings, augmix, rotations, scratch, levels, values, target.planar)


@jit(nogil=True)
def change_images(batch, settings, augmix, rotations, scratch, sums):
    """Make the views of the images of a batch that no other thread takes; several threads may call it at once.

    Args:
        batch: The images and their views, Images.
        settings: draws.Settings, with one AugMix view.
        augmix: draws.AugMixParams for it, not drawn yet.
        rotations: What `rotate.make_rotations` returns for this size.
        scratch: What `views.own_scratch` returns in this thread for this size.
        sums: This thread's memory for the sums of more than three chains of levels, float32 [C H W]; else empty.
    """
    i = claim(batch.next_image)
    while i < batch.indices.size and batch.refused[0] == 0:
        change_image(i, batch, settings, augmix, rotations, scratch, sums)
        i = claim(batch.next_image)

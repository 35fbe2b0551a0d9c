"""Images in others' forms, uint8 or float32 and planes or pixels, to a thread's planar row and back."""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.augmix_cpu.geometry import BLOCK, copy
from fastmagn_kernels.augmix_cpu.layout import pixels_to_planes, planes_to_pixels, stream, take_values
from fastmagn_kernels.compiling import jit_inlined, jit_uncounted
from fastmagn_kernels.pixel import unit

_NO_FRACTION = np.float32(2**23)


class Forms(NamedTuple):
    """The images of a batch. Kernels are compiled once for all forms: one of the two arrays is empty, [0, 0].

    Args:
        levels: uint8 [B, C H W].
        floats: float32 [B, C H W], in [0, 1].
        planar: Whether the values are in the order of planes, [C, H, W], rather than of pixels, [H, W, C].
        channels: C, 1 or 3; one channel is planar.
    """

    levels: np.ndarray
    floats: np.ndarray
    planar: bool
    channels: int


@jit_uncounted
def is_within(values, low, high):
    """Return whether all values, float32, are in low..high; NaN is not."""
    outside = np.int32(0)
    for k in range(values.size):
        outside = np.int32(outside | np.int32(not values[k] >= low) | np.int32(not values[k] <= high))
    return outside == 0


@jit_uncounted
def round_to_levels(values, levels):
    """Fill `levels`, uint8, with the values, float32, times 255, rounded to the nearest, ties to even, and clipped.

    A float32 of 2^23 or more has no fraction, so adding 2^23 rounds, and whole vectors at once.
    """
    for k in range(levels.size):
        value = values[k] * np.float32(255)
        value = np.float32(0) if value < np.float32(0) else value
        value = np.float32(255) if value > np.float32(255) else value
        levels[k] = np.uint8(np.int32((value + _NO_FRACTION) - _NO_FRACTION))


@jit_inlined
def load_image(i, source, low, high, rows):
    """Load image `i` of `source`, Forms, into the first of `rows`, with three planes; the second row is scratch.

    Floats are rounded to 256 levels. Return False, and load nothing, if some are not in low..high.
    """
    first, size = rows[0], rows[0].size // 3
    if source.floats.size > 0:
        values = source.floats[i]
        if not is_within(values, low, high):
            return False
        if source.planar:
            round_to_levels(values, first[: values.size])
        else:
            round_to_levels(values, rows[1])
            pixels_to_planes(rows[1], first)
    elif source.planar:
        copy(source.levels[i], first[: source.levels.shape[1]])
    else:
        pixels_to_planes(source.levels[i], first)
    if source.channels == 1:
        copy(first[:size], first[size : 2 * size])
        copy(first[:size], first[2 * size :])
    return True


@jit_inlined
def store_image(row, i, target, pixels, mixed):
    """Store a planar image, uint8 [3 H W], as image `i` of `target`, Forms; `pixels` and `mixed` are of `Scratch`."""
    if target.floats.size == 0:
        levels = target.levels[i]
        if target.planar:
            copy(row, levels)
        else:
            planes_to_pixels(row, 0, row.size // 3, levels, 0)
        return
    floats = target.floats[i]
    for start in range(0, floats.size, 3 * BLOCK):
        count = min(3 * BLOCK, floats.size - start)
        take_values(row, start, count, target.planar, pixels, 0)
        for k in range(count):
            mixed[k] = unit(pixels[k])
        stream(mixed, floats[start:], count)

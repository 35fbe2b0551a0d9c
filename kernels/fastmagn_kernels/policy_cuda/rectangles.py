"""Rectangles in an image whose elements are numbered row by row, channels last."""

from typing import NamedTuple

import numpy as np
from numba import cuda


class Rectangle(NamedTuple):
    """A rectangle, by the elements of an image [H W 3]; all uint32.

    Args:
        start: The first element of its first row in the image.
        size: The elements of all its rows, over the image's whole width.
        row: The elements of a row of the image.
        left: How many of them are left of the rectangle.
        width: How many of them are in it.
    """

    start: np.uint32
    size: np.uint32
    row: np.uint32
    left: np.uint32
    width: np.uint32


@cuda.jit(device=True)
def rectangle(box, image_width):
    """Return the Rectangle of `box`: left, top, width and height, px, int32 [4]."""
    row = np.uint32(3 * image_width)
    return Rectangle(
        np.uint32(np.uint32(box[1]) * row),
        np.uint32(np.uint32(box[3]) * row),
        row,
        np.uint32(3 * box[0]),
        np.uint32(3 * box[2]),
    )


@cuda.jit(device=True)
def is_between(k, start, size):
    """Return whether start <= k < start + size, uint32."""
    return np.uint32(k - start) < size


@cuda.jit(device=True)
def is_in(k, area):
    """Return whether element `k`, uint32, is in a Rectangle. The division is left to the elements of its rows."""
    return is_between(k, area.start, area.size) and is_between(np.uint32(k % area.row), area.left, area.width)

"""The CPU engine's simplest geometric operations on one image, exact against Pillow (see `pixel`).

An image is planar, a flat uint8 row [3 H W], so that loops over its planes are contiguous and vectorise. An operation
reads `source` and writes `target`, two different rows; `scratch` is a thread's `operations.Scratch`.

Bilinear transforms are in `bilinear`, shears, which are faster, in `shear`.
LLVM vectorises a loop only if at most 8 comparisons at run time can prove that no two arrays overlap. Parts of one
array at constant offsets need no comparison.
"""

import numpy as np

from fastmagn_kernels.compiling import jit_uncounted
from fastmagn_kernels.pixel import bilinear

BLOCK = 512  # pixels
BLACK = np.uint64(0)  # a packed colour


@jit_uncounted
def block_shape(width):
    """Return the columns and rows of a block: whole rows or a part of one, so its pixels are contiguous."""
    return min(width, BLOCK), max(1, BLOCK // width)


@jit_uncounted
def copy(source, target):
    """Copy `source` to `target`, which must not overlap it, without numpy's checks."""
    for k in range(target.size):
        target[k] = source[k]


@jit_uncounted
def translate(source, target, height, width, dx, dy):
    """Shift an image: target(x, y) = source(x + dx, y + dy), and black outside."""
    size = height * width
    if abs(dx) >= width or abs(dy) >= height:
        target[:] = 0
        return
    offset = dy * width + dx
    for c in range(3):
        plane, out = source[c * size : (c + 1) * size], target[c * size : (c + 1) * size]
        # One flat copy, then black for the pixels that it leaves and for the columns that it moves to the next row.
        if offset >= 0:
            copy(plane[offset:], out[: size - offset])
            out[size - offset :] = 0
        else:
            out[:-offset] = 0
            copy(plane, out[-offset:])
        if dx != 0:
            first, last = (width - dx, width) if dx > 0 else (0, -dx)
            for y in range(height):
                for x in range(first, last):
                    out[np.uint64(y * width + x)] = 0


@jit_uncounted
def packed(red, green, blue):
    """Pack a colour into the low 24 bits of a uint64, red lowest."""
    return np.uint64(red) | np.uint64(green) << np.uint64(8) | np.uint64(blue) << np.uint64(16)


@jit_uncounted
def channel(colour, c):
    """Return a channel of a packed colour, uint8."""
    return np.uint8((colour >> np.uint64(8 * c)) & np.uint64(255))


@jit_uncounted
def first_neighbour(position, size):
    """Return the index of a position's first neighbour and the fraction towards the second, both float64.

    Where Pillow repeats a border pixel, the position becomes that pixel's and the fraction 0: the value is the same to
    the bit.
    """
    position = min(max(position - 0.5, 0.0), size - 1.0)
    first = np.floor(position)
    return first, position - first


@jit_uncounted
def transform_pixel(source, height, width, matrix, fill, p):
    """Return pixel `p`, three uint8, as Image.transform makes it by an affine matrix, bilinear, in Pillow's arithmetic.

    `fill` is the packed colour of the outside.
    """
    size = height * width
    xx, xy, offset_x, yx, yy, offset_y = matrix
    x, y = p % width + 0.5, p // width + 0.5
    source_x = xx * x + xy * y + offset_x
    source_y = yx * x + yy * y + offset_y
    if not (source_x >= 0.0 and source_x < width and source_y >= 0.0 and source_y < height):
        return channel(fill, 0), channel(fill, 1), channel(fill, 2)
    left, dx = first_neighbour(source_x, width)
    top, dy = first_neighbour(source_y, height)
    corner = np.int64(top) * width + np.int64(left)
    right = 1 if dx > 0.0 else 0
    below = width if dy > 0.0 else 0
    red, green, blue = source[corner:], source[size + corner :], source[2 * size + corner :]
    return (
        np.uint8(bilinear(red[0], red[right], red[below], red[right + below], dx, dy)),
        np.uint8(bilinear(green[0], green[right], green[below], green[right + below], dx, dy)),
        np.uint8(bilinear(blue[0], blue[right], blue[below], blue[right + below], dx, dy)),
    )


@jit_uncounted
def transform_pixels(source, target, height, width, matrix, fill, first, last):
    """Transform the pixels first..last - 1 by `transform_pixel`."""
    size = height * width
    for p in range(first, last):
        target[p], target[size + p], target[2 * size + p] = transform_pixel(source, height, width, matrix, fill, p)

"""The CPU engine's geometric operations on one image, exact against Pillow (see `pixel`).

An image is planar, a flat uint8 row [3 H W], so that loops over its planes are contiguous and vectorise. An operation
reads `source` and writes `target`, two different rows; `scratch` is a thread's `operations.Scratch`.

Shears are in `shear`, rotations by whole degrees in `rotate`. Other rotations work on blocks of pixels, in four loops:
find the position that each pixel comes from, load the pixels there, interpolate between them, store the channels in
their planes. Only the second one does not vectorise, because it loads from anywhere.
LLVM vectorises a loop only if at most 8 comparisons at run time can prove that no two arrays overlap. Parts of one
array at constant offsets need no comparison: that is why the channels of a block are BLOCK elements apart in one array.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastmagn_kernels.augmix_cpu.lookup import pointer_at
from fastmagn_kernels.compiling import jit, jit_inlined, jit_uncounted
from fastmagn_kernels.pixel import MAX_ANGLE_UNITS, bilinear, interpolate, rotation_offset

BLOCK = 512  # pixels; the arrays of a block take 37 KB
_TILE = 32  # the largest number of a tile's columns
_WIDE = 128  # columns from which on there are tiles


@jit_uncounted
def block_shape(width):
    """Return the columns and rows of a block: whole rows or a part of one, so its pixels are contiguous."""
    return min(width, BLOCK), max(1, BLOCK // width)


@jit_uncounted
def tile_shape(width):
    """Return the columns and rows of a block of a rotation: of a wide image a tile, whose last one can be beyond it.

    A row of BLOCK pixels comes from so many rows of a large image that they do not stay in a core's first caches: 1,024
    columns took 7.9 ns a pixel, and 224 columns 3.1.
    """
    if width < _WIDE:
        return block_shape(width)
    tiles = (width + _TILE - 1) // _TILE
    columns = (width + tiles - 1) // tiles
    return columns, BLOCK // columns


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
    """Pack a pixel into the low 24 bits of a uint64, red lowest."""
    return np.uint64(red) | np.uint64(green) << np.uint64(8) | np.uint64(blue) << np.uint64(16)


@jit_uncounted
def pack_pixels(source, colours):
    """Pack each pixel in 32 bits, so that one load of 64 bits finds a pixel and the next one (`pair_at`)."""
    size = source.size // 3
    red, green, blue = source[:size], source[size : 2 * size], source[2 * size :]
    for k in range(size):
        colours[k] = np.uint32(red[k]) | np.uint32(green[k]) << np.uint32(8) | np.uint32(blue[k]) << np.uint32(16)


@intrinsic
def pair_at(typingctx, colours, position):
    """Load the pixels `position`, in the low 32 bits, and `position + 1`: uint64.

    The second one can be beyond the row or the image; its fraction is then 0 (`first_neighbour`).
    """

    def generate(context, builder, signature, args):
        pointer = pointer_at(context, builder, signature.args[0], *args, ir.IntType(64))
        return builder.load(pointer, align=4)

    return types.uint64(colours, position), generate


@jit_uncounted
def first_neighbour(position, size):
    """Return the index of a position's first neighbour and the fraction towards the second, both float64.

    Where Pillow repeats a border pixel, the position becomes that pixel's and the fraction 0: the value is the same to
    the bit, and the loops need no border and no clipped second index.
    """
    position = min(max(position - 0.5, 0.0), size - 1.0)
    first = np.floor(position)
    return first, position - first


@jit_uncounted
def transform_pixels(source, target, height, width, matrix, first, last):
    """Transform the pixels first..last - 1 as Image.transform does, by an affine matrix and bilinear.

    They are computed one by one, in Pillow's arithmetic.
    """
    size = height * width
    xx, xy, offset_x, yx, yy, offset_y = matrix
    for p in range(first, last):
        x, y = p % width + 0.5, p // width + 0.5
        source_x = xx * x + xy * y + offset_x
        source_y = yx * x + yy * y + offset_y
        inside = source_x >= 0.0 and source_x < width and source_y >= 0.0 and source_y < height
        left, dx = first_neighbour(source_x, width)
        top, dy = first_neighbour(source_y, height)
        corner = np.int64(top) * width + np.int64(left) if inside else 0
        right = 1 if inside and dx > 0.0 else 0
        below = width if inside and dy > 0.0 else 0
        for c in range(3):
            k = c * size + corner
            value = bilinear(source[k], source[k + right], source[k + below], source[k + right + below], dx, dy)
            target[c * size + p] = np.uint8(value) if inside else np.uint8(0)


@jit_inlined
def locate_rotated(scratch, matrix, height, width, x0, y0, count):
    """Find where the pixels of the block at (x0, y0) come from, in Pillow's order of operations."""
    corners, fractions, centres = scratch.corners, scratch.fractions, scratch.centres
    xx, xy, offset_x, yx, yy, offset_y = matrix
    black, stride = np.float64(height * width), np.float64(width)
    left_edge, upper_edge = np.float64(x0), np.float64(y0)
    for p in range(count):
        x, y = left_edge + centres[p], upper_edge + centres[BLOCK + p]
        source_x = xx * x + xy * y + offset_x
        source_y = yx * x + yy * y + offset_y
        inside = (source_x >= 0.0) & (source_x < width) & (source_y >= 0.0) & (source_y < height)
        left, fractions[p] = first_neighbour(source_x, width)
        top, fractions[BLOCK + p] = first_neighbour(source_y, height)
        corners[p] = np.int32(top * stride + left if inside else black)


@jit_uncounted
def find_two(colours, corners, found, stride, count):
    """Load the pairs at the corners, and those one row below."""
    below = np.uint64(stride)
    for p in range(count):
        corner = np.uint64(np.uint32(corners[p]))
        found[p] = pair_at(colours, corner)
        found[BLOCK + p] = pair_at(colours, corner + below)


@jit_uncounted
def channel(pair, shift):
    """Return eight bits of a pair of pixels as float64; a 64-bit integer converts without being narrowed first."""
    return np.float64(np.int64((pair >> np.uint64(shift)) & np.uint64(255)))


@jit_uncounted
def interpolate_bilinear(found, fractions, channels, count):
    """Interpolate between the four pixels of two pairs."""
    for p in range(count):
        top, bottom = found[p], found[BLOCK + p]
        dx, dy = fractions[p], fractions[BLOCK + p]
        for c in range(3):
            upper = interpolate(channel(top, 8 * c), channel(top, 32 + 8 * c), dx)
            lower = interpolate(channel(bottom, 8 * c), channel(bottom, 32 + 8 * c), dx)
            channels[c * BLOCK + p] = np.uint8(np.int32(interpolate(upper, lower, dy)))


@jit_uncounted
def store_rows(channels, target, start, width, rows, columns, stored):
    """Store the first `stored` of a block's columns in the planes of `target`, from pixel `start` on."""
    size = target.size // 3
    if columns == width:  # its rows are one
        rows, columns, stored = 1, rows * width, rows * width
    for c in range(3):
        for row in range(rows):
            first = c * size + start + row * width
            copy(channels[c * BLOCK + row * columns :], target[first : first + stored])


@jit
def rotation_matrix(angle, rotation_table, height, width):
    """Return Image.rotate's matrix for `angle` / 64 degrees counter-clockwise: six float64."""
    cosine, sine = rotation_table[angle + MAX_ANGLE_UNITS]
    offset_x, offset_y = rotation_offset(cosine, sine, height, width)
    return cosine, sine, offset_x, -sine, cosine, offset_y


@jit_uncounted
def transform_bilinear(source, target, height, width, matrix, fill, scratch):
    """Transform as Image.transform does, by an affine matrix, bilinear; `fill` is the packed colour of the outside."""
    found, channels, colours = scratch.found, scratch.channels, scratch.colours
    pack_pixels(source, colours)
    # A position outside is that of the pair after the image, whatever its fraction.
    for k in (height * width, height * width + width):
        colours[k] = colours[k + 1] = np.uint32(fill)
    columns, rows = tile_shape(width)
    for y0 in range(0, height, rows):
        for x0 in range(0, width, columns):
            own_rows = min(rows, height - y0)
            count = columns * own_rows
            locate_rotated(scratch, matrix, height, width, x0, y0, count)
            find_two(colours, scratch.corners, found, width, count)
            interpolate_bilinear(found, scratch.fractions, channels, count)
            store_rows(channels, target, y0 * width + x0, width, own_rows, columns, min(columns, width - x0))


@jit_uncounted
def rotate(source, target, height, width, angle, rotation_table, scratch):
    """Rotate as Image.rotate does, by `angle` / 64 degrees counter-clockwise, bilinear."""
    if angle == 0:
        copy(source, target)
        return
    matrix = rotation_matrix(angle, rotation_table, height, width)
    transform_bilinear(source, target, height, width, matrix, np.uint64(0), scratch)

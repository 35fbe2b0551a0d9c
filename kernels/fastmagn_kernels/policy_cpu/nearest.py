"""Affine transforms of one image to the nearest pixel, exact against Pillow, which computes them in fixed point.

The image is made in tiles of 8 x 8 pixels. If a tile comes from at most 16 x 16 pixels of the source, as under every
rotation and under shears up to 1, AVX-512 finds all its pixels of a plane in one step (see `augmix_cpu.lookup`). Other
transforms, smaller images and other CPUs load pixel by pixel.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastmagn_kernels.augmix_cpu.bilinear import TILE, WINDOW, has_windows, span
from fastmagn_kernels.augmix_cpu.geometry import block_shape
from fastmagn_kernels.augmix_cpu.lookup import LANES, VECTOR, cpu_has, load_pieces, look_up_lanes, pointer_at
from fastmagn_kernels.compiling import jit_uncounted

_ONE = 1 << 16


@intrinsic
def _move_tile(typingctx, source, target, size, height, width, fill, offsets, start_x, start_z, left, top, at):
    """Make a tile of all three planes from the window of the source at (`left`, `top`).

    `start_x` and `start_z`, int32, are the source's position of the tile's first pixel in fixed point; `offsets`, int32
    [2 x 64], are those of its pixels from there, x and then z; `at` is the place of the first pixel in a plane.
    """

    def generate(context, builder, signature, args):
        if not cpu_has(context, "avx512vbmi"):
            return context.get_dummy_value()
        source, target, size, height, width, fill, offsets, start_x, start_z, left, top, at = args
        source_type, target_type, _, _, _, fill_type, offsets_type, *_ = signature.args
        word = ir.IntType(32)
        words = ir.VectorType(word, LANES)

        def number(value):
            return context.get_constant(types.intp, value)

        def in_all_lanes(scalar, lanes):
            first = builder.insert_element(lanes(ir.Undefined), scalar, word(0))
            return builder.shuffle_vector(first, lanes(ir.Undefined), ir.VectorType(word, LANES)([0] * LANES))

        def all_words(scalar):
            return in_all_lanes(builder.trunc(scalar, word), words)

        def position(start, k):
            pointer = pointer_at(context, builder, offsets_type, offsets, number(k * LANES), words)
            moved = builder.add(builder.load(pointer, align=4), all_words(start))
            return builder.ashr(moved, words([16] * LANES))

        x, z = position(start_x, 0), position(start_z, 1)
        inside = builder.and_(
            builder.icmp_unsigned("<", x, all_words(width)), builder.icmp_unsigned("<", z, all_words(height))
        )
        corner = builder.add(builder.mul(top, number(WINDOW)), left)
        where = builder.sub(builder.add(builder.shl(z, words([4] * LANES)), x), all_words(corner))
        where = builder.trunc(where, VECTOR)
        window = builder.add(builder.mul(top, width), left)
        for c in range(3):
            plane = builder.mul(size, number(c))
            starts = [builder.add(builder.add(plane, window), builder.mul(width, number(row))) for row in range(WINDOW)]
            quarters = load_pieces(context, builder, source_type, source, starts)
            colour = builder.load(pointer_at(context, builder, fill_type, fill, number(c), ir.IntType(8)))
            found = builder.select(inside, look_up_lanes(builder, quarters, where), in_all_lanes(colour, VECTOR))
            for row in range(TILE):
                lanes = ir.VectorType(word, TILE)([TILE * row + k for k in range(TILE)])
                out = builder.add(builder.add(plane, at), builder.mul(width, number(row)))
                values = builder.shuffle_vector(found, found, lanes)
                pointer = pointer_at(context, builder, target_type, target, out, values.type)
                builder.store(values, pointer, align=1)
        return context.get_dummy_value()

    arguments = source, target, size, height, width, fill, offsets, start_x, start_z, left, top, at
    return types.void(*arguments), generate


@jit_uncounted
def fill_tile(target, size, width, at, colour):
    """Fill a tile with a colour, uint8 [3]."""
    for c in range(3):
        for y in range(TILE):
            out = target[c * size + at + y * width :]
            for x in range(TILE):
                out[x] = colour[c]


@jit_uncounted
def nearest_by_tiles(source, target, height, width, matrix, fill, offsets):
    """Transform as `nearest` does, if the image and the matrix allow tiles; return whether they do."""
    a0, a1, a2 = np.int64(matrix[0]), np.int64(matrix[1]), np.int64(matrix[2])
    a3, a4, a5 = np.int64(matrix[3]), np.int64(matrix[4]), np.int64(matrix[5])
    first_x, last_x = span(a0, a1)
    first_z, last_z = span(a3, a4)
    largest = (WINDOW - 1) * _ONE
    if not has_windows() or min(height, width) < WINDOW or max(last_x - first_x, last_z - first_z) > largest:
        return False
    for k in range(TILE * TILE):
        row, column = k // TILE, k % TILE
        offsets[k] = column * a0 + row * a1
        offsets[TILE * TILE + k] = column * a3 + row * a4
    size = height * width
    for y0 in range(0, height, TILE):
        y = min(y0, height - TILE)
        for x0 in range(0, width, TILE):
            x = min(x0, width - TILE)
            start_x, start_z, at = a2 + y * a1 + x * a0, a5 + y * a4 + x * a3, y * width + x
            left, right = (start_x + first_x) >> 16, (start_x + last_x) >> 16
            top, bottom = (start_z + first_z) >> 16, (start_z + last_z) >> 16
            if right < 0 or bottom < 0 or left >= width or top >= height:
                fill_tile(target, size, width, at, fill)
                continue
            left, top = min(max(left, 0), width - WINDOW), min(max(top, 0), height - WINDOW)
            _move_tile(source, target, size, height, width, fill, offsets, start_x, start_z, left, top, at)
    return True


@jit_uncounted
def locate_nearest(corners, matrix, height, width, x0, y0, columns, rows):
    """Find where the pixels of a block come from; -1 is outside."""
    a0, a1, a2 = np.int32(matrix[0]), np.int32(matrix[1]), np.int32(matrix[2])
    a3, a4, a5 = np.int32(matrix[3]), np.int32(matrix[4]), np.int32(matrix[5])
    stride, right, bottom = np.int32(width), np.uint32(width), np.uint32(height)
    sixteen = np.int32(16)
    for y in range(rows):
        row = np.int32(y0 + y)
        start_x = np.int32(np.int32(a2 + np.int32(row * a1)) + np.int32(np.int32(x0) * a0))
        start_y = np.int32(np.int32(a5 + np.int32(row * a4)) + np.int32(np.int32(x0) * a3))
        out = corners[y * columns :]
        for k in range(columns):
            column = np.int32(k)
            x = np.int32(np.int32(start_x + np.int32(column * a0)) >> sixteen)
            z = np.int32(np.int32(start_y + np.int32(column * a3)) >> sixteen)
            inside = (np.uint32(x) < right) & (np.uint32(z) < bottom)
            out[k] = np.int32(np.int32(z * stride) + x) if inside else np.int32(-1)


@jit_uncounted
def nearest(source, target, height, width, matrix, fill, scratch):
    """Transform as Image.transform does, by an affine matrix in 16.16 fixed point, to the nearest pixel.

    `fill`, uint8 [3], is the colour of the outside.
    """
    size, corners = height * width, scratch.corners
    if nearest_by_tiles(source, target, height, width, matrix, fill, corners):
        return
    red, green, blue = source[:size], source[size : 2 * size], source[2 * size :]
    columns, rows = block_shape(width)
    for y0 in range(0, height, rows):
        for x0 in range(0, width, columns):
            block_columns, block_rows = min(columns, width - x0), min(rows, height - y0)
            locate_nearest(corners, matrix, height, width, x0, y0, block_columns, block_rows)
            start = y0 * width + x0
            to_red, to_green, to_blue = target[start:], target[size + start :], target[2 * size + start :]
            for p in range(block_columns * block_rows):
                corner = corners[p]
                inside = corner >= 0
                k = np.uint64(np.uint32(corner)) if inside else np.uint64(0)
                to_red[p] = red[k] if inside else fill[0]
                to_green[p] = green[k] if inside else fill[1]
                to_blue[p] = blue[k] if inside else fill[2]

"""The CPU engine's bilinear transforms of one image, exact against Pillow (see `pixel`), without its float64 per pixel.

The image is made in tiles of 8 x 8 pixels, in four steps: find where the tile's pixels come from, in integers; load the
four neighbours of each; interpolate between them in float32; store them. All but the second are loops that LLVM
vectorises. For the second, AVX-512 looks all neighbours in a plane up in a window of 16 x 16 pixels (see `lookup`);
other CPUs, and transforms by which a tile comes from more pixels, load them pair by pair.

Why this is exact. Let u = 2^-24 px, the unit of the integers, and v the value that Pillow truncates.

- A position is the sum of the position of the tile's first pixel and of a step from there, both rounded to u. It is
  less than 1.05 u off Pillow's, whose own roundings, below 2^20 px, are less than 2^-5 u. v is a continuous function of
  the positions, also where the neighbours change, and no steeper than 255 per px along either axis: it changes by less
  than 2.1 2^-16.
- In float32, a value below 256 is rounded by at most 2^-17. Two roundings of each row's value, one of the rows'
  difference and two of the result change the result by less than 2.6 2^-16. Fused multiply-adds round less often.
- So if the result is at least 8 2^-16 away from all integers, its whole part is v's, and Pillow's: the roundings of
  its float64 are below 2^-40.
- If all four neighbours are equal, so is the result, and Pillow's value, whose differences are 0. But they must be
  Pillow's neighbours: no position may be within 2 u of an integer. (At a border, where Pillow repeats a pixel, both are
  among the four.)
- Other pixels, one in 1,400 of a picture, are in doubt, and those within 2 u of the line where the outside begins. They
  are left to Pillow's arithmetic.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastmagn_kernels.augmix_cpu.geometry import BLACK, channel, copy, transform_pixel, transform_pixels
from fastmagn_kernels.augmix_cpu.lookup import (
    LANES,
    VECTOR,
    cpu_has,
    load_pieces,
    look_up_lanes,
    pointer_at,
    prefetch,
)
from fastmagn_kernels.compiling import jit, jit_inlined, jit_uncounted
from fastmagn_kernels.pixel import MAX_ANGLE_UNITS, rotation_offset

TILE = 8  # px, both sides
PIXELS = TILE * TILE
WINDOW = 16  # px, both sides
_AHEAD = 32  # columns that are loaded ahead: at 1024 px a rotation took up to twice as long without
_BITS = 24
_ONE = 1 << _BITS  # a px in units
_SAFE = 1 << 14  # units; a tile that is so near a border is treated as one that has it
_FAR = 120  # px; int32 has 128
_LARGEST_SPAN = 60.0  # px between the pixels that a tile comes from; within `_FAR` with all that is added
_LARGEST_SPAN_IN_WINDOW = 13.5  # px: a window starts at a whole pixel, and has the next neighbours
_LARGEST_OFFSET = 2.0**20  # px
_NEIGHBOURS = 4
# `Scratch.tile` has parts of PIXELS: the neighbours of each plane (upper left, upper right, lower left, lower right),
# its values, whether its neighbours differ; whether a position is near an integer, and whether a pixel is in doubt.
MADE = 3 * _NEIGHBOURS * PIXELS
_DIFFER = MADE + 3 * PIXELS
EDGES = _DIFFER + 3 * PIXELS
DOUBTS = EDGES + PIXELS
TILE_BYTES = DOUBTS + PIXELS


@intrinsic
def has_windows(typingctx):
    """Return whether this CPU looks up all pixels of a tile at once."""

    def generate(context, builder, signature, args):
        return context.get_constant(types.boolean, cpu_has(context, "avx512vbmi"))

    return types.boolean(), generate


@jit_uncounted
def span(of_column, of_row):
    """Return the lowest and the highest position in a tile, from that of its first pixel on."""
    across, down = (TILE - 1) * of_column, (TILE - 1) * of_row
    return min(across, 0) + min(down, 0), max(across, 0) + max(down, 0)


@jit_inlined
def fill_steps(positions, matrix):
    """Fill in where the pixels of a tile come from, from its first one on, in units."""
    xx, xy, _, yx, yy, _ = matrix
    for k in range(PIXELS):
        row, column = k // TILE, k % TILE
        positions[k] = np.int32(np.rint((xx * column + xy * row) * _ONE))
        positions[PIXELS + k] = np.int32(np.rint((yx * column + yy * row) * _ONE))


@jit_inlined
def in_units(position, left):
    """Return a position in units, int64, from pixel `left` on, as int32; one that is far away becomes a nearer one."""
    return np.int32(min(max(position - left * _ONE, -_FAR * _ONE), _FAR * _ONE))


@jit_inlined
def limits(size, left):
    """Return the range of positions along an axis, in units, and the last first neighbour, from pixel `left` on."""
    return in_units(0, left), in_units((size - 1) * _ONE, left), np.int32(min(size - 2 - left, _FAR))


@jit_inlined
def find_places(positions, fractions, tile, start_x, start_y, limits_x, limits_y, pitch):
    """Find the pixels' first neighbours, the fractions towards the next ones, and which positions are near an integer.

    `pitch` is the distance of rows in the places of the neighbours.
    """
    low_x, high_x, last_x = limits_x
    low_y, high_y, last_y = limits_y
    two, mask, bits, unit = np.int32(2), np.int32(_ONE - 4), np.int32(_BITS), np.float32(1 / _ONE)
    for k in range(PIXELS):
        x, y = np.int32(start_x + positions[k]), np.int32(start_y + positions[PIXELS + k])
        edge_x, edge_y = np.int32(np.int32(x + two) & mask), np.int32(np.int32(y + two) & mask)
        tile[EDGES + k] = np.uint8(255) if (edge_x == 0) | (edge_y == 0) else np.uint8(0)
        x, y = min(max(x, low_x), high_x), min(max(y, low_y), high_y)
        left, top = min(np.int32(x >> bits), last_x), min(np.int32(y >> bits), last_y)
        fractions[k] = np.float32(np.int32(x - np.int32(left << bits))) * unit
        fractions[PIXELS + k] = np.float32(np.int32(y - np.int32(top << bits))) * unit
        positions[2 * PIXELS + k] = np.int32(np.int32(top * pitch) + left)


@intrinsic
def look_up_neighbours(typingctx, source, size, width, window, ahead, positions, tile):
    """Load a tile's neighbours from the window that starts at pixel `window`; load the window at `ahead` ahead."""

    def generate(context, builder, signature, args):
        if not cpu_has(context, "avx512vbmi"):
            return context.get_dummy_value()
        source, size, width, window, ahead, positions, tile = args
        source_type, _, _, _, _, positions_type, tile_type = signature.args

        def number(value):
            return context.get_constant(types.intp, value)

        words = ir.VectorType(ir.IntType(32), LANES)
        pointer = pointer_at(context, builder, positions_type, positions, number(2 * PIXELS), words)
        places = builder.trunc(builder.load(pointer, align=4), VECTOR)
        where = [builder.add(places, VECTOR([step] * LANES)) for step in (0, 1, WINDOW, WINDOW + 1)]
        for c in range(3):
            plane = builder.mul(size, number(c))
            rows = [builder.add(plane, builder.mul(width, number(row))) for row in range(WINDOW)]
            for row in rows:
                prefetch(context, builder, source_type, source, builder.add(row, ahead))
            starts = [builder.add(row, window) for row in rows]
            quarters = load_pieces(context, builder, source_type, source, starts)
            for n in range(_NEIGHBOURS):
                part = number((_NEIGHBOURS * c + n) * PIXELS)
                out = pointer_at(context, builder, tile_type, tile, part, VECTOR)
                builder.store(look_up_lanes(builder, quarters, where[n]), out, align=1)
        return context.get_dummy_value()

    return types.void(source, size, width, window, ahead, positions, tile), generate


@intrinsic
def pair_at(typingctx, plane, position):
    """Load a pixel of a plane, in the low 8 bits, and the next one: uint16."""

    def generate(context, builder, signature, args):
        return builder.load(pointer_at(context, builder, signature.args[0], *args, ir.IntType(16)), align=1)

    return types.uint16(plane, position), generate


@jit_inlined
def load_neighbours(source, size, width, window, positions, pairs, tile):
    """Load a tile's neighbours pair by pair; their places start at pixel `window`."""
    for c in range(3):
        plane = c * size + window
        for k in range(PIXELS):
            here = plane + np.int64(positions[2 * PIXELS + k])
            pairs[k], pairs[PIXELS + k] = pair_at(source, here), pair_at(source, here + width)
        for k in range(PIXELS):
            upper, lower, first = pairs[k], pairs[PIXELS + k], _NEIGHBOURS * c * PIXELS + k
            tile[first], tile[first + PIXELS] = np.uint8(upper), np.uint8(upper >> np.uint16(8))
            tile[first + 2 * PIXELS], tile[first + 3 * PIXELS] = np.uint8(lower), np.uint8(lower >> np.uint16(8))


@jit_inlined(fastmath={"contract"})
def interpolate_tile(fractions, tile):
    """Interpolate between the neighbours of all pixels; return whether any is in doubt."""
    for c in range(3):
        for k in range(PIXELS):
            first = _NEIGHBOURS * c * PIXELS + k
            a, b = tile[first], tile[first + PIXELS]
            below_a, below_b = tile[first + 2 * PIXELS], tile[first + 3 * PIXELS]
            tile[_DIFFER + c * PIXELS + k] = (a ^ b) | (a ^ below_a) | (a ^ below_b) | tile[EDGES + k]
    any_doubt = np.int32(0)
    for k in range(PIXELS):
        dx, dy = fractions[k], fractions[PIXELS + k]
        doubt = np.int32(0)
        for c in range(3):
            first = _NEIGHBOURS * c * PIXELS + k
            a, b = np.float32(tile[first]), np.float32(tile[first + PIXELS])
            below_a, below_b = np.float32(tile[first + 2 * PIXELS]), np.float32(tile[first + 3 * PIXELS])
            top = a + (b - a) * dx
            bottom = below_a + (below_b - below_a) * dx
            value = np.int32((top + (bottom - top) * dy) * np.float32(1 << 16))
            tile[MADE + c * PIXELS + k] = np.uint8(np.int32(value >> np.int32(16)))
            near = np.int32(np.int32(value + np.int32(8)) & np.int32(0xFFF0)) == 0
            differ = np.int32(tile[_DIFFER + c * PIXELS + k])
            doubt = np.int32(doubt | (differ if near else np.int32(0)))
        tile[DOUBTS + k] = np.uint8(doubt)
        any_doubt = np.int32(any_doubt | doubt)
    return any_doubt != 0


@jit_inlined
def within_two(first, second):
    """Return whether two int32 differ by at most 2; all steps are cast because numba widens to 64 bits."""
    return np.uint32(np.int32(np.int32(first - second) + np.int32(2))) <= np.uint32(4)


@jit_inlined
def fill_outside(positions, tile, start_x, start_y, inside_x, inside_y, fill):
    """Give pixels from outside their colour, and doubt those near the line between; return whether any is in doubt.

    `inside_x` and `inside_y` are the ranges that are inside, in units.
    """
    low_x, high_x = inside_x
    low_y, high_y = inside_y
    any_doubt = np.uint8(0)
    for k in range(PIXELS):
        x, y = np.int32(start_x + positions[k]), np.int32(start_y + positions[PIXELS + k])
        inside = (x >= low_x) & (x < high_x) & (y >= low_y) & (y < high_y)
        near = within_two(x, low_x) | within_two(x, high_x) | within_two(y, low_y) | within_two(y, high_y)
        for c in range(3):
            made = MADE + c * PIXELS + k
            tile[made] = tile[made] if inside else channel(fill, c)
        doubt = tile[DOUBTS + k] if inside else np.uint8(0)
        doubt = np.uint8(255) if near else doubt
        tile[DOUBTS + k] = doubt
        any_doubt = np.uint8(any_doubt | doubt)
    return any_doubt != 0


@jit_inlined
def settle_doubts(source, height, width, matrix, fill, at, tile):
    """Compute those pixels of the tile whose first pixel is `at` by Pillow's arithmetic that are in doubt."""
    for k in range(PIXELS):
        if tile[DOUBTS + k] != 0:
            p = at + k // TILE * width + k % TILE
            red, green, blue = transform_pixel(source, height, width, matrix, fill, p)
            tile[MADE + k], tile[MADE + PIXELS + k], tile[MADE + 2 * PIXELS + k] = red, green, blue


@jit_inlined
def make_tile(source, height, width, matrix, fill, spans, windowed, x0, y0, scratch):
    """Make the tile whose first pixel is (x0, y0) in `scratch.tile`."""
    positions, fractions, tile = scratch.positions, scratch.fractions, scratch.tile
    xx, xy, offset_x, yx, yy, offset_y = matrix
    first_x, last_x, first_y, last_y = spans
    size, reach = height * width, WINDOW if windowed else 2
    x = np.int64(np.rint((xx * (x0 + 0.5) + xy * (y0 + 0.5) + offset_x - 0.5) * _ONE))
    y = np.int64(np.rint((yx * (x0 + 0.5) + yy * (y0 + 0.5) + offset_y - 0.5) * _ONE))
    lowest_x, highest_x, lowest_y, highest_y = x + first_x, x + last_x, y + first_y, y + last_y
    border, right, bottom = -_ONE // 2, width * _ONE - _ONE // 2, height * _ONE - _ONE // 2
    beyond = max(lowest_x - right, lowest_y - bottom, border - highest_x, border - highest_y)
    if beyond > _SAFE:
        for c in range(3):
            colour = channel(fill, c)
            for k in range(PIXELS):
                tile[MADE + c * PIXELS + k] = colour
        return
    left = min(max((lowest_x - _SAFE) >> _BITS, 0), width - reach)
    top = min(max((lowest_y - _SAFE) >> _BITS, 0), height - reach)
    start_x, start_y, window = np.int32(x - left * _ONE), np.int32(y - top * _ONE), top * width + left
    pitch = np.int32(WINDOW if windowed else width)
    find_places(positions, fractions, tile, start_x, start_y, limits(width, left), limits(height, top), pitch)
    if windowed:
        ahead = window + np.int64(_AHEAD * xx) + np.int64(_AHEAD * yx) * width
        look_up_neighbours(source, size, np.int64(width), window, ahead, positions, tile)
    else:
        load_neighbours(source, size, width, window, positions, scratch.pairs, tile)
    doubt = interpolate_tile(fractions, tile)
    if max(highest_x - right, highest_y - bottom, border - lowest_x, border - lowest_y) > -_SAFE:
        inside_x = in_units(border, left), in_units(right, left)
        inside_y = in_units(border, top), in_units(bottom, top)
        doubt = fill_outside(positions, tile, start_x, start_y, inside_x, inside_y, fill)
    if doubt:
        settle_doubts(source, height, width, matrix, fill, y0 * width + x0, tile)


@intrinsic
def move_row(typingctx, source, start, target, at):
    """Copy the pixels of a tile's row; numba's loop moves them one by one."""

    def generate(context, builder, signature, args):
        source, start, target, at = args
        source_type, _, target_type, _ = signature.args
        row = ir.VectorType(ir.IntType(8), TILE)
        value = builder.load(pointer_at(context, builder, source_type, source, start, row), align=1)
        builder.store(value, pointer_at(context, builder, target_type, target, at, row), align=1)
        return context.get_dummy_value()

    return types.void(source, start, target, at), generate


@jit_uncounted
def transform_tiles(source, target, height, width, matrix, fill, spans, windowed, scratch):
    """Transform as `transform_bilinear` does; `spans` are those of a tile along both axes, in units."""
    fill_steps(scratch.positions, matrix)
    for row in range(0, height, TILE):
        y0 = min(row, height - TILE)
        for column in range(0, width, TILE):
            x0 = min(column, width - TILE)
            make_tile(source, height, width, matrix, fill, spans, windowed, x0, y0, scratch)
            for c in range(3):
                for y in range(TILE):
                    at = (c * height + y0 + y) * width + x0
                    move_row(scratch.tile, MADE + c * PIXELS + y * TILE, target, at)


@jit_uncounted
def transform_bilinear(source, target, height, width, matrix, fill, scratch):
    """Transform as Image.transform does, by an affine matrix, bilinear; `fill` is the packed colour of the outside."""
    xx, xy, offset_x, yx, yy, offset_y = matrix
    first_x, last_x = span(xx, xy)
    first_y, last_y = span(yx, yy)
    shortest, largest = min(height, width), max(last_x - first_x, last_y - first_y)
    near = abs(offset_x) <= _LARGEST_OFFSET and abs(offset_y) <= _LARGEST_OFFSET
    if shortest >= TILE and largest <= _LARGEST_SPAN and near:
        spans = (
            np.int64(first_x * _ONE), np.int64(last_x * _ONE), np.int64(first_y * _ONE), np.int64(last_y * _ONE)
        )  # fmt: skip
        windowed = has_windows() and shortest >= WINDOW and largest <= _LARGEST_SPAN_IN_WINDOW
        transform_tiles(source, target, height, width, matrix, fill, spans, windowed, scratch)
    else:
        transform_pixels(source, target, height, width, matrix, fill, 0, height * width)


@jit
def rotation_matrix(angle, rotation_table, height, width):
    """Return Image.rotate's matrix for `angle` / 64 degrees counter-clockwise: six float64."""
    cosine, sine = rotation_table[angle + MAX_ANGLE_UNITS]
    offset_x, offset_y = rotation_offset(cosine, sine, height, width)
    return cosine, sine, offset_x, -sine, cosine, offset_y


@jit_uncounted
def rotate(source, target, height, width, angle, rotation_table, scratch):
    """Rotate as Image.rotate does, by `angle` / 64 degrees counter-clockwise, bilinear."""
    if angle == 0:
        copy(source, target)
        return
    matrix = rotation_matrix(angle, rotation_table, height, width)
    transform_bilinear(source, target, height, width, matrix, BLACK, scratch)

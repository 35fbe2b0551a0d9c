"""The CPU engine's shears of one image, exact against Pillow (see `pixel`), without its float64 for each pixel.

All pixels of a sheared line (a row of shear x, a column of shear y) move by the same shift, a whole number of pixels
and a fraction. Lines with the same whole shift are read as they are in memory. Between a pixel and its neighbour the
engine interpolates in 32-bit integers with 23 fractional bits; where these cannot decide Pillow's value, it uses
Pillow's arithmetic.

Why this is exact. Let a and b be the neighbours, s = b - a, f the fraction of Pillow's position, v Pillow's a + s f in
float64, and u = 2^-23. With F = trunc(f / u - 1/2), f / u is in (F, F + 2): `low` = a / u + s F and `high` =
low + 2 s are integers, exact in 32 bits (255 2^23 + 2 255 < 2^31), and if s is not 0, a + s f is strictly between their
multiples by u. If both have the same whole part, it is Pillow's value. Pillow's roundings change nothing:

- Each rounding of a position below 2^20 px is less than 2^-33, so Pillow's f differs from ours by less than 2^-31. A
  line whose fraction is within 2^-28 of 0 or 1 is left to Pillow's arithmetic. Hence f / u - F is above 2^-5 - 2^-8 (at
  the lower end, F = 0), F + 2 - f / u is above 1/2 - 2^-8, and the whole part of the shift is Pillow's.
- So a + s f is more than |s| 2^-29 away from either bound, and v differs from it by less than 2^-44: v has the same
  whole part as the bounds.
- If s = 0, v = a for any fraction.
- The nearest pixel, the shift rounded, decides whether a position is inside the image. A line whose fraction is within
  2^-28 of 1/2 is left to Pillow's arithmetic, too.

A neighbour beyond the border is the border's pixel.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastmagn_kernels.augmix_cpu.geometry import BLACK, copy, transform_pixels
from fastmagn_kernels.augmix_cpu.lookup import LANES, VECTOR, pointer_at, prefetch
from fastmagn_kernels.compiling import jit_uncounted

_BITS = 23
_DOUBTFUL = 2.0**-28
BLOCK = 1024  # pixels, in whole rows, at least one; an image of 32 x 32 is one block
_ROWS_AT_ONCE = 4  # of shear y, at least: it reads one more row than it writes
_LINES_AT_ONCE = 4  # whole shifts that one loop can handle; at severity 3, an image of 32 x 32 has no more
STRIP = LANES  # columns that one vector holds
_ROWS_AHEAD = 16  # a strip's next rows are too far apart for the CPU to expect them: loaded so many rows before
_WIDE = 2 * STRIP  # from this width on, few of all whole shifts are in a strip


def block_size(width: int) -> int:
    """Return the largest number of pixels in a block, of either shear."""
    return max(BLOCK, _ROWS_AT_ONCE * width)


@jit_uncounted
def block_rows(width):
    """Return the rows of a block of shear y."""
    return max(BLOCK // width, _ROWS_AT_ONCE)


def padding(height: int, width: int) -> int:
    """Return how many pixels before and after a narrow image `shear_y` can read, at any shear."""
    return (height + _LINES_AT_ONCE + 1) * width


def padded_size(height: int, width: int) -> int:
    """Return the size of `Scratch.padded`."""
    return 3 * height * width + 2 * padding(height, width) if width < _WIDE else _LINES_AT_ONCE * STRIP


@jit_uncounted
def split_shifts(amount, count, limit, wholes, nearests):
    """Split the shifts of all lines into the whole part and the nearest integer, int32 [count].

    Return whether any is in doubt. Shifts are clipped beyond `limit`, the image's size along the shift, where
    everything is black.
    """
    doubt = False
    for i in range(count):
        shift = min(max(amount * (i + 0.5), -limit - 0.75), limit + 0.75)
        whole = np.floor(shift)
        fraction = shift - whole
        doubt |= min(min(fraction, 1.0 - fraction), abs(fraction - 0.5)) < _DOUBTFUL
        wholes[i] = np.int32(whole)
        nearests[i] = np.int32(np.floor(shift + 0.5))
    return doubt


@jit_uncounted
def fixed_point(shift):
    """Return F, int32, for the fraction of a shift (see above)."""
    return np.int32((shift - np.floor(shift)) * (1 << _BITS) - 0.5)


@jit_uncounted
def interpolate_fixed(first, second, fractions, inside, out, count):
    """Interpolate between uint8 neighbours by fractions F; `out` is black where `inside` is 0 instead of 255.

    Return whether any value is in doubt. Each step is cast because numba widens to 64 bits wherever it can, which
    halves the lanes.
    """
    doubt = np.int32(0)
    for k in range(count):
        step = np.int32(np.int32(second[k]) - np.int32(first[k]))
        low = np.int32(np.int32(np.int32(first[k]) << np.int32(_BITS)) + np.int32(step * fractions[k]))
        high = np.int32(np.int32(low + step) + step)
        doubt = np.int32(doubt | np.int32(low ^ high))
        out[k] = np.uint8(np.uint8(low >> np.int32(_BITS)) & inside[k])
    return (doubt >> np.int32(_BITS)) != 0


@jit_uncounted
def settle_doubts(first, second, fractions, count, source, target, height, width, matrix, start):
    """Compute those pixels, from number `start` on, by Pillow's arithmetic that `interpolate_fixed` could not decide.

    A block of 4,096 pixels often has one. The pixels get all of their channels.
    """
    for k in range(count):
        step = np.int32(np.int32(second[k]) - np.int32(first[k]))
        low = np.int32(np.int32(np.int32(first[k]) << np.int32(_BITS)) + np.int32(step * fractions[k]))
        high = np.int32(np.int32(low + step) + step)
        if np.int32(low ^ high) >> np.int32(_BITS) != 0:
            transform_pixels(source, target, height, width, matrix, BLACK, start + k, start + k + 1)


@jit_uncounted
def fill_fractions_x(fractions, inside, centres_x, centres_y, y0, amount, width, count):
    """Fill the fractions F of a block's pixels from row `y0` on, and `inside`: 255 for those from inside the image."""
    top = np.float64(y0)
    for k in range(count):
        shift = amount * (top + centres_y[k])
        fractions[k] = fixed_point(shift)
        nearest = centres_x[k] + np.floor(shift + 0.5)
        inside[k] = np.uint8(255) if (nearest > 0.0) & (nearest < width) else np.uint8(0)


@jit_uncounted
def repeat_borders_x(source, target, height, width, wholes, nearests, y0, y1):
    """Give the pixels with only one neighbour, at most one per row, the border's value."""
    size = height * width
    for y in range(y0, y1):
        border = 0 if wholes[y] < 0 else width - 1
        x = -1 - wholes[y] if wholes[y] < 0 else border - wholes[y]
        if 0 <= x < width and 0 <= x + nearests[y] < width:
            for c in range(3):
                target[c * size + y * width + x] = source[c * size + y * width + border]


@jit_uncounted
def copy_within(source, start, count, out):
    """Copy `count` elements from `start` on; `out` is left as it is for those before or after the source's."""
    first, last = max(0, -start), min(count, source.size - start)
    if first < last:
        copy(source[start + first :], out[first:last])


@jit_uncounted
def shear_x(source, target, height, width, amount, scratch):
    """Transform as Image.transform does, by (1, amount, 0, 0, 1, 0), bilinear."""
    matrix = (1.0, amount, 0.0, 0.0, 1.0, 0.0)
    wholes, nearests, fractions, inside = scratch.wholes, scratch.nearests, scratch.fixed_fractions, scratch.inside
    if split_shifts(amount, height, width, wholes, nearests):
        transform_pixels(source, target, height, width, matrix, BLACK, 0, height * width)
        return
    size, shifted = height * width, scratch.shifted
    rows = max(1, BLOCK // width)
    for y0 in range(0, height, rows):
        y1 = min(y0 + rows, height)
        fill_fractions_x(
            fractions, inside, scratch.centres_x, scratch.centres_y, y0, amount, width, (y1 - y0) * width
        )  # fmt: skip
        first = y0
        while first < y1:
            whole, last = wholes[first], first + 1
            while last < y1 and wholes[last] == whole:
                last += 1
            start, count = (first - y0) * width, (last - first) * width
            for c in range(3):
                k = c * size + first * width
                here, found = k + whole, source
                if here < 0 or here + count >= source.size:  # what is beyond the image is not `inside`
                    copy_within(source, here, count + 1, shifted)
                    here, found = 0, shifted
                a, b, between = found[here:], found[here + 1 :], fractions[start:]
                if interpolate_fixed(a, b, between, inside[start:], target[k:], count):
                    settle_doubts(a, b, between, count, source, target, height, width, matrix, first * width)
            first = last
        repeat_borders_x(source, target, height, width, wholes, nearests, y0, y1)


@jit_uncounted
def repeat(row, width, count):
    """Repeat the first `width` elements up to `count` in all; each copy doubles them."""
    done = width
    while done < count:
        step = min(done, count - done)
        copy(row, row[done : done + step])
        done += step


@jit_uncounted
def gather_lines(source, lines, line, out, width, count):
    """Fill the elements of `out` that come from line `line` or one of the next three.

    `source` is the row of the first; each next line is one row further down.
    """
    second, third, fourth = source[width:], source[2 * width :], source[3 * width :]
    for k in range(count):
        of = lines[k]
        a, b, c, d, value = source[k], second[k], third[k], fourth[k], out[k]  # it vectorises only if all are loaded
        value = a if of == line else value
        value = b if of == np.uint8(line + 1) else value
        value = c if of == np.uint8(line + 2) else value
        value = d if of == np.uint8(line + 3) else value
        out[k] = value


@intrinsic
def gather_strip(typingctx, source, source_at, lines, x, line, out, width):
    """Do what `gather_lines` does, for one vector from column `x` on; LLVM does not vectorise so short a loop."""

    def generate(context, builder, signature, args):
        source, source_at, lines, x, line, out, width = args
        source_type, _, lines_type, _, _, out_type, _ = signature.args
        of = builder.load(pointer_at(context, builder, lines_type, lines, x, VECTOR), align=1)
        pointer = pointer_at(context, builder, out_type, out, x, VECTOR)
        value = builder.load(pointer, align=1)
        for n in range(_LINES_AT_ONCE):
            position = builder.add(source_at, builder.mul(width, context.get_constant(types.intp, n)))
            found = builder.load(pointer_at(context, builder, source_type, source, position, VECTOR), align=1)
            wanted = builder.add(line, context.get_constant(types.uint8, n))
            first = builder.insert_element(VECTOR(ir.Undefined), wanted, ir.IntType(32)(0))
            everywhere = builder.shuffle_vector(first, first, ir.VectorType(ir.IntType(32), STRIP)(None))
            value = builder.select(builder.icmp_unsigned("==", of, everywhere), found, value)
        builder.store(value, pointer, align=1)
        ahead = builder.add(source_at, builder.mul(width, context.get_constant(types.intp, _ROWS_AHEAD)))
        prefetch(context, builder, source_type, source, ahead)
        return context.get_dummy_value()

    return types.void(source, source_at, lines, x, line, out, width), generate


@jit_uncounted
def shift_row(source, start, wholes, lowest, lines, shifted, padded, width):
    """Fill `shifted` with the row from `start` on of a wide image, whose columns come from other rows.

    `padded` is scratch. What would come from before or after the source is undefined.
    """
    for x in range(0, width, STRIP):
        first, last = wholes[x], wholes[min(x + STRIP, width) - 1]
        for whole in range(min(first, last), max(first, last) + 1, _LINES_AT_ONCE):
            here, line = start + x + whole * width, np.uint8(whole - lowest)
            if here >= 0 and here + (_LINES_AT_ONCE - 1) * width + STRIP <= source.size:
                gather_strip(source, here, lines, x, line, shifted, np.int64(width))
            else:
                for n in range(_LINES_AT_ONCE):
                    copy_within(source, here + n * width, STRIP, padded[n * STRIP :])
                gather_strip(padded, np.int64(0), lines, x, line, shifted, np.int64(STRIP))


@jit_uncounted
def finish_borders_y(source, target, height, width, wholes, nearests):
    """Finish the rows with pixels from outside the image, which become black, or with one neighbour, the border's."""
    size = height * width
    lowest = min(wholes[0], wholes[width - 1])
    highest = max(wholes[0], wholes[width - 1]) + 1
    for y in range(height):
        if y + lowest >= 0 and y + highest < height:
            continue
        row = np.int32(y)
        for c in range(3):
            out, upper, lower = target[c * size + y * width :], source[c * size :], source[(c + 1) * size - width :]
            for x in range(width):
                value, above, below = out[x], upper[x], lower[x]
                value = above if np.int32(row + wholes[x]) < 0 else value
                value = below if np.int32(row + wholes[x]) >= np.int32(height - 1) else value
                nearest = np.int32(row + nearests[x])
                out[x] = value if (nearest >= 0) & (nearest < np.int32(height)) else np.uint8(0)


@jit_uncounted
def shear_y(source, target, height, width, amount, scratch):
    """Transform as Image.transform does, by (1, 0, 0, amount, 1, 0), bilinear."""
    matrix = (1.0, 0.0, 0.0, amount, 1.0, 0.0)
    wholes, nearests, fractions, inside = scratch.wholes, scratch.nearests, scratch.fixed_fractions, scratch.inside
    in_doubt = split_shifts(amount, width, height, wholes, nearests)
    lowest, highest = min(wholes[0], wholes[width - 1]), max(wholes[0], wholes[width - 1])
    if in_doubt or highest - lowest > 255 - _LINES_AT_ONCE:  # `lines` have 8 bits
        transform_pixels(source, target, height, width, matrix, BLACK, 0, height * width)
        return
    size, origin = height * width, (scratch.padded.size - source.size) // 2
    padded, lines, shifted = scratch.padded, scratch.lines, scratch.shifted
    if width < _WIDE:
        copy(source, padded[origin : origin + 3 * size])
    rows = min(height, block_rows(width))
    for x in range(width):
        fractions[x] = fixed_point(amount * (x + 0.5))
        lines[x] = np.uint8(wholes[x] - lowest)
    repeat(fractions, width, rows * width)
    repeat(lines, width, (rows + 1) * width)
    inside[:] = 255
    for y0 in range(0, height, rows):
        count = min(rows, height - y0) * width
        for c in range(3):
            k = c * size + y0 * width
            if width < _WIDE:
                for whole in range(lowest, highest + 1, _LINES_AT_ONCE):  # one row beyond the block: the neighbours
                    line = np.uint8(whole - lowest)
                    gather_lines(padded[origin + k + whole * width :], lines, line, shifted, width, count + width)
            else:
                for start in range(0, count + width, width):
                    shift_row(source, k + start, wholes, lowest, lines, shifted[start:], padded, width)
            below = shifted[width:]
            if interpolate_fixed(shifted, below, fractions, inside, target[k:], count):
                settle_doubts(shifted, below, fractions, count, source, target, height, width, matrix, y0 * width)
    finish_borders_y(source, target, height, width, wholes, nearests)

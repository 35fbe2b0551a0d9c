"""The CUDA engine's geometric operations on one image, each by all threads of a block, exact against Pillow.

An image is a part of the flat uint8 array `pixels`, [H W 3], from the index `source` on; the result is written from the
index `target` on, to another part. Nothing here waits for other threads: the caller synchronises the block before the
result is read or the source is written.

Threads of a warp have neighbouring columns. Columns are in the outer loop and rows in the inner one, so that what
depends on the column only is computed once. Loops are `while` loops because numba divides to count the steps of a
range, which costs more than a pixel. Indices are unsigned because a signed index can count from the end, which costs
three instructions per access.

Positions are Pillow's float64. Between pixels the engine interpolates in 32-bit fixed point (`words`), and where that
cannot decide Pillow's value, one pixel in about 2,000, in Pillow's arithmetic.
"""

import math

import numpy as np
from numba import cuda

from fastmagn_kernels.augmix_cuda.words import (
    BITS,
    MAX_FIXED,
    between_four,
    between_two,
    centre,
    fixed_point,
    high_word,
    is_in_doubt,
    is_inside,
    is_near_whole,
    is_near_whole_or_half,
    lower_fraction,
)
from fastmagn_kernels.pixel import MAX_ANGLE_UNITS, bilinear, rotation_offset

BLACK = np.uint32(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)


@cuda.jit(device=True)
def load_pixel(pixels, i):
    """Return the three values of the pixel at index `i`: int32."""
    i = np.uint64(np.uint32(i))
    return np.int32(pixels[i]), np.int32(pixels[i + _ONE]), np.int32(pixels[i + _TWO])


@cuda.jit(device=True)
def store_pixel(pixels, i, red, green, blue):
    """Store the three values of the pixel at index `i`."""
    i = np.uint64(np.uint32(i))
    pixels[i] = red
    pixels[i + _ONE] = green
    pixels[i + _TWO] = blue


@cuda.jit(device=True)
def colour_of(packed):
    """Return red, green and blue, int32, of a uint32 in which red is lowest."""
    return (
        np.int32(packed & np.uint32(255)),
        np.int32((packed >> np.uint32(8)) & np.uint32(255)),
        np.int32((packed >> np.uint32(16)) & np.uint32(255)),
    )


@cuda.jit(device=True)
def shift(images, source, pixels, target, height, width, dx, dy, mirror, fill):
    """Shift an image: target(x, y) = source(x + dx, y + dy), and `fill` outside. `mirror` then flips the result.

    `source`, uint64, is an index of `images`. `fill` is a packed colour (`colour_of`).
    """
    row = np.uint32(3 * width)
    x = np.int32(cuda.threadIdx.x)
    while x < width:
        source_x = np.int32(np.int32(width - 1 - x if mirror else x) + dx)
        is_column = np.uint32(source_x) < np.uint32(width)
        y = np.int32(cuda.threadIdx.y)
        i = np.uint32(np.uint32(3 * source_x) + np.uint32(np.uint32(y + dy) * row))
        k = np.uint32(np.uint32(target + np.uint32(3 * x)) + np.uint32(np.uint32(y) * row))
        while y < height:
            red, green, blue = colour_of(fill)
            if is_column and np.uint32(np.int32(y + dy)) < np.uint32(height):
                place = source + np.uint64(i)
                red, green, blue = (
                    np.int32(images[place]),
                    np.int32(images[place + _ONE]),
                    np.int32(images[place + _TWO]),
                )
            store_pixel(pixels, k, red, green, blue)
            y = np.int32(y + cuda.blockDim.y)
            i = np.uint32(i + np.uint32(row * cuda.blockDim.y))
            k = np.uint32(k + np.uint32(row * cuda.blockDim.y))
        x = np.int32(x + cuda.blockDim.x)


@cuda.jit(device=True)
def _nearest(i, size):
    """Return the index in 0..size - 1 that is nearest to i: int32."""
    return min(max(i, np.int32(0)), np.int32(size - 1))


@cuda.jit(device=True)
def exact_pixel(pixels, source, height, width, matrix, x, y):
    """Return pixel (x, y) as Image.transform computes it, by a matrix of six float64 and bilinear: three int32.

    The position must be inside the image.
    """
    xx, xy, x1, yx, yy, y1 = matrix
    source_x = xx * centre(x) + xy * centre(y) + x1 - 0.5
    source_y = yx * centre(x) + yy * centre(y) + y1 - 0.5
    x0, y0 = math.floor(source_x), math.floor(source_y)
    dx, dy = source_x - x0, source_y - y0
    left, right = _nearest(np.int32(x0), width), _nearest(np.int32(np.int32(x0) + 1), width)
    top, bottom = _nearest(np.int32(y0), height), _nearest(np.int32(np.int32(y0) + 1), height)
    a0, a1, a2 = load_pixel(pixels, source + np.uint32(3 * np.int32(top * width + left)))
    b0, b1, b2 = load_pixel(pixels, source + np.uint32(3 * np.int32(top * width + right)))
    c0, c1, c2 = load_pixel(pixels, source + np.uint32(3 * np.int32(bottom * width + left)))
    d0, d1, d2 = load_pixel(pixels, source + np.uint32(3 * np.int32(bottom * width + right)))
    return (
        bilinear(a0, b0, c0, d0, dx, dy),
        bilinear(a1, b1, c1, d1, dx, dy),
        bilinear(a2, b2, c2, d2, dx, dy),
    )


@cuda.jit(device=True)
def rotation_matrix(angle, rotation_table, height, width):
    """Return Image.rotate's matrix for `angle` / 64 degrees counter-clockwise: six float64."""
    row = np.uint32(2 * (angle + MAX_ANGLE_UNITS))
    cosine, sine = rotation_table[row], rotation_table[np.uint32(row + 1)]
    offset_x, offset_y = rotation_offset(cosine, sine, height, width)
    return cosine, sine, offset_x, -sine, cosine, offset_y


@cuda.jit(device=True)
def transform(pixels, source, target, height, width, matrix, fill):
    """Transform as Image.transform does, by an affine matrix of six float64, bilinear, and `fill` outside."""
    xx, xy, x1, yx, yy, y1 = matrix
    width_high, height_high = high_word(np.float64(width)), high_word(np.float64(height))
    too_large = max(height, width) > MAX_FIXED
    x = np.int32(cuda.threadIdx.x)
    while x < width:
        across_x, across_y = xx * centre(x), yx * centre(x)
        y = np.int32(cuda.threadIdx.y)
        k = np.uint32(target + np.uint32(3 * np.int32(y * width + x)))
        while y < height:
            source_x = across_x + xy * centre(y) + x1
            source_y = across_y + yy * centre(y) + y1
            red, green, blue = colour_of(fill)
            if is_inside(source_x, width_high) and is_inside(source_y, height_high):
                red, green, blue, in_doubt = _interpolated_pixel(pixels, source, height, width, source_x, source_y)
                if in_doubt or too_large:
                    red, green, blue = exact_pixel(pixels, source, height, width, matrix, x, y)
            store_pixel(pixels, k, red, green, blue)
            y = np.int32(y + cuda.blockDim.y)
            k = np.uint32(k + np.uint32(np.uint32(3 * width) * cuda.blockDim.y))
        x = np.int32(x + cuda.blockDim.x)


@cuda.jit(device=True)
def _interpolated_pixel(pixels, source, height, width, source_x, source_y):
    """Interpolate at a position: three int32, and whether any of them is in doubt."""
    x0, dx = fixed_point(source_x, -0.5)
    y0, dy = fixed_point(source_y, -0.5)
    row = np.int32(3 * width)
    left = np.int32(3 * max(x0, np.int32(0)))  # x0 is in -1..width - 1
    right = np.int32(3 * min(np.int32(x0 + 1), np.int32(width - 1)))
    top = np.int32(np.int32(max(y0, np.int32(0)) * row) + np.int32(source))
    bottom = np.int32(np.int32(min(np.int32(y0 + 1), np.int32(height - 1)) * row) + np.int32(source))
    a0, a1, a2 = load_pixel(pixels, np.int32(top + left))
    b0, b1, b2 = load_pixel(pixels, np.int32(top + right))
    c0, c1, c2 = load_pixel(pixels, np.int32(bottom + left))
    d0, d1, d2 = load_pixel(pixels, np.int32(bottom + right))
    red, green, blue = (
        between_four(a0, b0, c0, d0, dx, dy),
        between_four(a1, b1, c1, d1, dx, dy),
        between_four(a2, b2, c2, d2, dx, dy),
    )
    in_doubt = is_near_whole(dx) or is_near_whole(dy)
    if is_in_doubt(red) or is_in_doubt(green) or is_in_doubt(blue):
        in_doubt |= is_in_doubt(red) and (a0 != b0 or a0 != c0 or a0 != d0)
        in_doubt |= is_in_doubt(green) and (a1 != b1 or a1 != c1 or a1 != d1)
        in_doubt |= is_in_doubt(blue) and (a2 != b2 or a2 != c2 or a2 != d2)
    return np.int32(red >> BITS), np.int32(green >> BITS), np.int32(blue >> BITS), in_doubt


@cuda.jit(device=True)
def shear(pixels, source, target, height, width, amount, along_x):
    """Transform as Image.transform does, by (1, amount, 0, 0, 1, 0), or (1, 0, 0, amount, 1, 0) if not `along_x`.

    All pixels of a line (a row of the first, a column of the second) move by the same shift along the line. This is the
    CPU engine's method; `augmix_cpu.shear` explains why it is exact. Its bounds hold for the fractions of
    `words.fixed_point`, too: they are off by 2^-33 more.
    """
    if along_x:
        matrix = (1.0, amount, 0.0, 0.0, 1.0, 0.0)
        lines, length, line_step, step = height, width, np.int32(3 * width), np.int32(3)
        line, first = np.int32(cuda.threadIdx.y), np.int32(cuda.threadIdx.x)
        next_line, next_pixel = np.int32(cuda.blockDim.y), np.int32(cuda.blockDim.x)
    else:
        matrix = (1.0, 0.0, 0.0, amount, 1.0, 0.0)
        lines, length, line_step, step = width, height, np.int32(3), np.int32(3 * width)
        line, first = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y)
        next_line, next_pixel = np.int32(cuda.blockDim.x), np.int32(cuda.blockDim.y)
    while line < lines:
        whole, fraction = fixed_point(amount * centre(line), 0.0)
        start = np.int32(source + np.uint32(line * line_step))
        k = np.uint32(target + np.uint32(np.int32(line * line_step) + np.int32(first * step)))
        i = first
        if is_near_whole_or_half(fraction) or max(height, width) > MAX_FIXED:
            while i < length:
                red, green, blue = np.int32(0), np.int32(0), np.int32(0)
                if 0.0 <= amount * centre(line) + centre(i) < length:
                    x, y = (i, line) if along_x else (line, i)
                    red, green, blue = exact_pixel(pixels, source, height, width, matrix, x, y)
                store_pixel(pixels, k, red, green, blue)
                i = np.int32(i + next_pixel)
                k = np.uint32(k + np.uint32(next_pixel * step))
        nearest = np.int32(whole + 1) if fraction >= np.uint32(0x80000000) else whole
        fraction = lower_fraction(fraction)
        while i < length:
            red, green, blue = np.int32(0), np.int32(0), np.int32(0)
            if np.uint32(i + nearest) < np.uint32(length):
                before = max(np.int32(i + whole), np.int32(0))  # i + whole is in -1..length - 1
                after = min(np.int32(i + whole + 1), np.int32(length - 1))
                before, after = np.int32(start + np.int32(before * step)), np.int32(start + np.int32(after * step))
                red, green, blue, in_doubt = _sheared_pixel(pixels, before, after, fraction)
                if in_doubt:
                    x, y = (i, line) if along_x else (line, i)
                    red, green, blue = exact_pixel(pixels, source, height, width, matrix, x, y)
            store_pixel(pixels, k, red, green, blue)
            i = np.int32(i + next_pixel)
            k = np.uint32(k + np.uint32(next_pixel * step))
        line = np.int32(line + next_line)


@cuda.jit(device=True)
def _sheared_pixel(pixels, before, after, fraction):
    """Interpolate between the pixels at two indices: three int32, and whether any of them is in doubt."""
    a0, a1, a2 = load_pixel(pixels, before)
    b0, b1, b2 = load_pixel(pixels, after)
    red, high_red = between_two(a0, b0, fraction)
    green, high_green = between_two(a1, b1, fraction)
    blue, high_blue = between_two(a2, b2, fraction)
    differ = np.int32((red ^ high_red) | (green ^ high_green) | (blue ^ high_blue))
    return np.int32(red >> BITS), np.int32(green >> BITS), np.int32(blue >> BITS), differ >> BITS != 0

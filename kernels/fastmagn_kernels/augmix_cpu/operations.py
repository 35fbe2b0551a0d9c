"""The CPU engine's operations on one image: those that map values, and the choice among all of them.

An image is planar, a flat uint8 row [3 H W], as in `geometry`. An operation reads `source` and writes `target`, two
different rows. All else is a thread's `Scratch`, so that nothing is allocated for an image.
"""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.augmix_cpu.bilinear import PIXELS, TILE_BYTES
from fastmagn_kernels.augmix_cpu.geometry import BLOCK, copy, translate
from fastmagn_kernels.augmix_cpu.layout import CACHE_LINE
from fastmagn_kernels.augmix_cpu.lookup import look_up, look_up_vectors
from fastmagn_kernels.augmix_cpu.rotate import rotate_degrees
from fastmagn_kernels.augmix_cpu.shear import STRIP, block_size, padded_size, shear_x, shear_y
from fastmagn_kernels.compiling import jit_inlined, jit_uncounted
from fastmagn_kernels.pixel import (
    autocontrast_line,
    blend,
    equalize_quotient,
    equalize_step,
    mean_grey,
    posterize_entry,
    solarize_entry,
    stretch,
)
from fastmagn_kernels.random import draws

NUM_ROWS = 5  # the clean view, a spare row, and one for each of the three chains that are mixed at once


class Scratch(NamedTuple):
    """The memory of one thread. All arrays but `rows` can be a little longer, to fill cache lines.

    S is `shear.block_size`.

    Args:
        rows: Images, uint8 [NUM_ROWS, 3 H W].
        corners: The places in a plane that a block's pixels come from, int32 [BLOCK].
        positions: The positions x and y of the pixels of a tile of `bilinear`, from its first one on, and the places of
            their first neighbours: int32 [3 PIXELS].
        fractions: The fractions dx and dy from there, float32 [2 PIXELS].
        pairs: Pairs of neighbours of one plane, uint16 [2 PIXELS].
        tile: Their neighbours, values and marks (see `bilinear`), uint8 [TILE_BYTES].
        channels: The result of a block, uint8 [3 BLOCK].
        pixels: A block of the four images that are mixed, channels last: uint8 [4 x 3 BLOCK].
        mixed: The mix of a block, float32 [3 BLOCK].
        histograms: The histograms of the planes, int32 [3 x 256].
        table: A table of values, uint8 [256].
        padded: A narrow image and the pixels before and after it that shear y can read; parts of rows of others. uint8.
        wholes: The whole pixels of the shifts of a shear's lines, int32 [max(H, W)].
        nearests: These shifts rounded, int32 [max(H, W)].
        centres_x: The centres x of the pixels of a shear's block, in the block, float64 [S].
        centres_y: Their centres y, float64 [S].
        fixed_fractions: Their fractions in fixed point, int32 [S].
        inside: 255 for those that come from inside the image, uint8 [S].
        lines: The lines that their columns come from, counted from the uppermost, uint8 [S + W + STRIP].
        shifted: A plane of the block after whole shifts, uint8 [S + W + STRIP].
    """

    rows: np.ndarray
    corners: np.ndarray
    positions: np.ndarray
    fractions: np.ndarray
    pairs: np.ndarray
    tile: np.ndarray
    channels: np.ndarray
    pixels: np.ndarray
    mixed: np.ndarray
    histograms: np.ndarray
    table: np.ndarray
    padded: np.ndarray
    wholes: np.ndarray
    nearests: np.ndarray
    centres_x: np.ndarray
    centres_y: np.ndarray
    fixed_fractions: np.ndarray
    inside: np.ndarray
    lines: np.ndarray
    shifted: np.ndarray


def aligned(count: int, dtype: type) -> np.ndarray:
    """Return zeros [count or a little more] in cache lines that no other array shares."""
    padded_bytes = -(-count * np.dtype(dtype).itemsize // CACHE_LINE) * CACHE_LINE
    memory = np.zeros(padded_bytes + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + padded_bytes].view(dtype)


def make_scratch(height: int, width: int) -> Scratch:
    """Return the memory of one thread for images of one size."""
    size, sheared = height * width, block_size(width)
    sheared_y, sheared_x = np.divmod(np.arange(sheared), width)
    scratch = Scratch(
        rows=aligned(NUM_ROWS * 3 * size, np.uint8)[: NUM_ROWS * 3 * size].reshape(NUM_ROWS, 3 * size),
        corners=aligned(BLOCK, np.int32),
        positions=aligned(3 * PIXELS, np.int32),
        fractions=aligned(2 * PIXELS, np.float32),
        pairs=aligned(2 * PIXELS, np.uint16),
        tile=aligned(TILE_BYTES, np.uint8),
        channels=aligned(3 * BLOCK, np.uint8),
        pixels=aligned(4 * 3 * BLOCK, np.uint8),
        mixed=aligned(3 * BLOCK, np.float32),
        histograms=aligned(3 * 256, np.int32),
        table=aligned(256, np.uint8),
        padded=aligned(padded_size(height, width), np.uint8),
        wholes=aligned(max(height, width), np.int32),
        nearests=aligned(max(height, width), np.int32),
        centres_x=aligned(sheared, np.float64),
        centres_y=aligned(sheared, np.float64),
        fixed_fractions=aligned(sheared, np.int32),
        inside=aligned(sheared, np.uint8),
        lines=aligned(sheared + width + STRIP, np.uint8),
        shifted=aligned(sheared + width + STRIP, np.uint8),
    )
    scratch.centres_x[:sheared] = sheared_x + 0.5
    scratch.centres_y[:sheared] = sheared_y + 0.5
    return scratch


@jit_uncounted
def autocontrast(source, target, table):
    """Apply ImageOps.autocontrast to each plane: by a table or, where that is slower, by arithmetic for each pixel."""
    size = source.size // 3
    for c in range(3):
        plane, out = source[c * size : (c + 1) * size], target[c * size : (c + 1) * size]
        low, high = np.uint8(255), np.uint8(0)
        for k in range(size):
            low = min(low, plane[k])
            high = max(high, plane[k])
        if high == low:
            copy(plane, out)
            continue
        scale, offset = autocontrast_line(np.int64(low), np.int64(high))
        for v in range(256):
            table[v] = np.uint8(stretch(v, scale, offset))
        for k in range(look_up_vectors(plane, table, out), size):
            out[k] = np.uint8(stretch(plane[k], scale, offset))


@jit_uncounted
def fill_histograms(source, histograms):
    """Fill the planes' histograms, int32 [3 x 256], in one loop: counts of one plane often wait for each other."""
    size = source.size // 3
    green, blue = source[size:], source[2 * size :]
    histograms[:] = 0
    for k in range(size):
        histograms[np.uint64(source[k])] += 1
        histograms[np.uint64(256) + np.uint64(green[k])] += 1
        histograms[np.uint64(512) + np.uint64(blue[k])] += 1


@jit_uncounted
def last_count(histogram):
    """Return how many pixels have a plane's highest value."""
    last = 255
    while histogram[last] == 0:
        last -= 1
    return histogram[last]


@jit_uncounted
def equalize(source, target, histograms, table):
    """Apply ImageOps.equalize to each plane."""
    size = source.size // 3
    fill_histograms(source, histograms)
    steps = (
        np.int32(equalize_step(size, last_count(histograms))),
        np.int32(equalize_step(size, last_count(histograms[256:]))),
        np.int32(equalize_step(size, last_count(histograms[512:]))),
    )
    red, green, blue = steps[0] >> 1, steps[1] >> 1, steps[2] >> 1
    for v in range(256):  # a count becomes half a step and all lower values' counts; again all planes in one loop
        count_red, count_green, count_blue = histograms[v], histograms[256 + v], histograms[512 + v]
        histograms[v], histograms[256 + v], histograms[512 + v] = red, green, blue
        red += count_red
        green += count_green
        blue += count_blue
    for c in range(3):
        plane, out = source[c * size : (c + 1) * size], target[c * size : (c + 1) * size]
        if steps[c] == 0:
            copy(plane, out)
            continue
        per_step, cumulative = 1.0 / steps[c], histograms[c * 256 :]
        for v in range(256):
            table[v] = np.uint8(equalize_quotient(cumulative[v], per_step))
        look_up(plane, table, out)


@jit_uncounted
def posterize(source, target, bits):
    """Apply ImageOps.posterize."""
    kept = np.uint8(posterize_entry(255, bits))
    for k in range(source.size):
        target[k] = source[k] & kept


@jit_uncounted
def solarize(source, target, threshold):
    """Apply ImageOps.solarize."""
    threshold = np.int16(threshold)
    for k in range(source.size):
        target[k] = np.uint8(solarize_entry(np.int16(source[k]), threshold))


@jit_uncounted
def fill_luma(source, start, count, grey):
    """Fill `grey`, uint8, with `pixel.luma` of `count` pixels from `start` on, in 16 bits, for more lanes.

    The weights, base 256, have the digits 76 150 29 and 139 70 47. Neither weighted sum exceeds 256 x 255, and half of
    2^16 is 128 x 256.
    """
    size = source.size // 3
    red, green, blue = source[start:], source[size + start :], source[2 * size + start :]
    for k in range(count):
        r, g, b = np.uint16(red[k]), np.uint16(green[k]), np.uint16(blue[k])
        high = np.uint16(r * np.uint16(76) + g * np.uint16(150) + b * np.uint16(29))
        low = np.uint16(r * np.uint16(139) + g * np.uint16(70) + b * np.uint16(47))
        rounded = np.uint16(high + np.uint16(low >> np.uint16(8)) + np.uint16(128))
        grey[k] = np.uint8(rounded >> np.uint16(8))


@jit_uncounted
def enhance_color(source, target, factor, grey):
    """Apply ImageEnhance.Color: blend each pixel with its luma. `grey`, uint8 [BLOCK], is scratch."""
    size = source.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        fill_luma(source, start, count, grey)
        for c in range(3):
            plane, out = source[c * size + start :], target[c * size + start :]
            for k in range(count):
                out[k] = np.uint8(blend(grey[k], plane[k], factor))


@jit_uncounted
def blend_with(grey, source, target, factor, table):
    """Blend with one grey: by a table or, where that is slower, by arithmetic for each pixel."""
    for v in range(256):
        table[v] = np.uint8(blend(grey, np.uint8(v), factor))
    for k in range(look_up_vectors(source, table, target), source.size):
        target[k] = np.uint8(blend(grey, source[k], factor))


@jit_uncounted
def enhance_contrast(source, target, factor, scratch_grey, table):
    """Apply ImageEnhance.Contrast: blend with the image's mean luma. `scratch_grey`, uint8 [BLOCK], is scratch."""
    size = source.size // 3
    total = np.int64(0)
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        fill_luma(source, start, count, scratch_grey)
        of_block = np.uint32(0)
        for k in range(count):
            of_block = np.uint32(of_block + np.uint32(scratch_grey[k]))
        total += np.int64(of_block)
    blend_with(mean_grey(total, size), source, target, factor, table)


@jit_uncounted
def enhance_brightness(source, target, factor, table):
    """Apply ImageEnhance.Brightness: blend with black."""
    blend_with(0, source, target, factor, table)


@jit_uncounted
def smooth_block(above, here, below, smoothed, count):
    """Fill `smoothed`, uint8, with `pixel.smooth` of `count` pixels, in 16 bits, for more lanes.

    The rows are given from the first pixel's left neighbours on. With S, the sum of the pixels around and five times
    the pixel, Pillow truncates S / 13 + 1/2, which is an odd number of 26ths and so at least 1 / 26 away from any
    integer: its float32, whose error is below 2^-13, has the whole part of (S + 6) / 13. That is
    (S + 6) 5042 / 2^16, because 13 x 5042 is 2^16 + 10, and 10 (S + 6) < 2^16.
    """
    for k in range(count):
        outer = np.uint16(np.uint16(above[k]) + np.uint16(above[k + 1]) + np.uint16(above[k + 2]))
        inner = np.uint16(np.uint16(here[k]) + np.uint16(here[k + 2]) + np.uint16(5) * np.uint16(here[k + 1]))
        outer = np.uint16(outer + np.uint16(below[k]) + np.uint16(below[k + 1]) + np.uint16(below[k + 2]))
        total = np.uint16(outer + inner + np.uint16(6))
        smoothed[k] = np.uint8(np.uint32(np.uint32(total) * np.uint32(5042)) >> np.uint32(16))


@jit_uncounted
def enhance_sharpness(source, target, height, width, factor, smoothed):
    """Apply ImageEnhance.Sharpness: blend with the smoothed image, whose border is the image's own.

    `smoothed`, uint8 [BLOCK], is scratch.
    """
    size = height * width
    if min(height, width) < 3:
        copy(source, target)
        return
    last_row = size - width
    for c in range(3):
        plane, out = source[c * size : (c + 1) * size], target[c * size : (c + 1) * size]
        copy(plane, out[:width])
        copy(plane[last_row:], out[last_row:])
        # All inner rows are treated as one row; then their first and last pixels are restored.
        for start in range(width + 1, last_row - 1, BLOCK):
            count, left = min(BLOCK, last_row - 1 - start), start - 1
            smooth_block(plane[left - width :], plane[left:], plane[left + width :], smoothed, count)
            here, sharpened = plane[start:], out[start:]
            for k in range(count):
                sharpened[k] = np.uint8(blend(smoothed[k], here[k], factor))
        for y in range(1, height - 1):
            out[y * width] = plane[y * width]
            out[(y + 1) * width - 1] = plane[(y + 1) * width - 1]


@jit_inlined
def apply_operation(op, magnitude, source, target, height, width, rotations, scratch):
    """Apply one AugMix operation, by its id."""
    if op == draws.ROTATE:
        rotate_degrees(source, target, height, width, np.int64(magnitude), rotations, scratch)
    elif op == draws.SHEAR_X:
        shear_x(source, target, height, width, magnitude, scratch)
    elif op == draws.SHEAR_Y:
        shear_y(source, target, height, width, magnitude, scratch)
    elif op == draws.TRANSLATE_X:
        translate(source, target, height, width, np.int64(magnitude), 0)
    elif op == draws.TRANSLATE_Y:
        translate(source, target, height, width, 0, np.int64(magnitude))
    elif op == draws.AUTOCONTRAST:
        autocontrast(source, target, scratch.table)
    elif op == draws.EQUALIZE:
        equalize(source, target, scratch.histograms, scratch.table)
    elif op == draws.POSTERIZE:
        posterize(source, target, np.int64(magnitude))
    elif op == draws.SOLARIZE:
        solarize(source, target, np.int64(magnitude))
    elif op == draws.COLOR:
        enhance_color(source, target, np.float32(magnitude), scratch.channels)
    elif op == draws.CONTRAST:
        enhance_contrast(source, target, np.float32(magnitude), scratch.channels, scratch.table)
    elif op == draws.BRIGHTNESS:
        enhance_brightness(source, target, np.float32(magnitude), scratch.table)
    else:
        enhance_sharpness(source, target, height, width, np.float32(magnitude), scratch.channels)

"""The CPU engine's operations on one image: those that map values, and the choice among all of them.

An image is planar, a flat uint8 row [3 H W], as in `geometry`. An operation reads `source` and writes `target`, two
different rows. All else is a thread's `Scratch`, so that nothing is allocated for an image.
"""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.augmix_cpu.geometry import BLOCK, block_shape, copy, translate
from fastmagn_kernels.augmix_cpu.layout import CACHE_LINE
from fastmagn_kernels.augmix_cpu.lookup import look_up, look_up_vectors
from fastmagn_kernels.augmix_cpu.rotate import rotate_degrees
from fastmagn_kernels.augmix_cpu.shear import block_size, padding, shear_x, shear_y
from fastmagn_kernels.compiling import jit_inlined, jit_uncounted
from fastmagn_kernels.pixel import (
    autocontrast_line,
    blend,
    equalize_quotient,
    equalize_step,
    luma,
    mean_grey,
    posterize_entry,
    smooth,
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
        pairs: The pixels of an image, each with its neighbour, and a black row: uint64 [(H + 1) W + 1].
        centres: The centres x and y of a block's pixels, in the block: float64 [2 BLOCK].
        corners: The places in `pairs` of a block's pixels, int32 [BLOCK].
        fractions: Their dx and dy, float64 [2 BLOCK].
        found: The pairs at these places, and those one row below, uint64 [2 BLOCK].
        channels: The result of a block, uint8 [3 BLOCK].
        pixels: A block of the four images that are mixed, channels last: uint8 [4 x 3 BLOCK].
        mixed: The mix of a block, float32 [3 BLOCK].
        histograms: The histograms of the planes, int32 [3 x 256].
        table: A table of values, uint8 [256].
        padded: An image and the pixels before and after it that a shear can read, uint8.
        wholes: The whole pixels of the shifts of a shear's lines, int32 [max(H, W)].
        nearests: These shifts rounded, int32 [max(H, W)].
        centres_x: The centres x of the pixels of a shear's block, in the block, float64 [S].
        centres_y: Their centres y, float64 [S].
        fixed_fractions: Their fractions in fixed point, int32 [S].
        inside: 255 for those that come from inside the image, uint8 [S].
        lines: The lines that their columns come from, counted from the uppermost, uint8 [S + W].
        shifted: A plane of the block after whole shifts, uint8 [S + W].
    """

    rows: np.ndarray
    pairs: np.ndarray
    centres: np.ndarray
    corners: np.ndarray
    fractions: np.ndarray
    found: np.ndarray
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
    columns, _ = block_shape(width)
    y, x = np.divmod(np.arange(BLOCK), columns)
    sheared_y, sheared_x = np.divmod(np.arange(sheared), width)
    scratch = Scratch(
        rows=aligned(NUM_ROWS * 3 * size, np.uint8)[: NUM_ROWS * 3 * size].reshape(NUM_ROWS, 3 * size),
        pairs=aligned(size + width + 1, np.uint64),
        centres=aligned(2 * BLOCK, np.float64),
        corners=aligned(BLOCK, np.int32),
        fractions=aligned(2 * BLOCK, np.float64),
        found=aligned(2 * BLOCK, np.uint64),
        channels=aligned(3 * BLOCK, np.uint8),
        pixels=aligned(4 * 3 * BLOCK, np.uint8),
        mixed=aligned(3 * BLOCK, np.float32),
        histograms=aligned(3 * 256, np.int32),
        table=aligned(256, np.uint8),
        padded=aligned(3 * size + 2 * padding(height, width), np.uint8),
        wholes=aligned(max(height, width), np.int32),
        nearests=aligned(max(height, width), np.int32),
        centres_x=aligned(sheared, np.float64),
        centres_y=aligned(sheared, np.float64),
        fixed_fractions=aligned(sheared, np.int32),
        inside=aligned(sheared, np.uint8),
        lines=aligned(sheared + width, np.uint8),
        shifted=aligned(sheared + width, np.uint8),
    )
    scratch.centres[: 2 * BLOCK] = np.concatenate([x + 0.5, y + 0.5])
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
def enhance_color(source, target, factor, grey):
    """Apply ImageEnhance.Color: blend each pixel with its luma. `grey`, uint8 [BLOCK], is scratch."""
    size = source.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        red, green, blue = source[start:], source[size + start :], source[2 * size + start :]
        for k in range(count):
            grey[k] = np.uint8(luma(red[k], green[k], blue[k]))
        for c in range(3):
            plane, out = source[c * size + start :], target[c * size + start :]
            for k in range(count):
                out[k] = np.uint8(blend(grey[k], plane[k], factor))


@jit_uncounted
def enhance_contrast(source, target, factor):
    """Apply ImageEnhance.Contrast: blend with the image's mean luma."""
    size = source.size // 3
    red, green, blue = source[:size], source[size : 2 * size], source[2 * size :]
    total = np.int64(0)
    for k in range(size):
        total += luma(red[k], green[k], blue[k])
    grey = mean_grey(total, size)
    for k in range(source.size):
        target[k] = np.uint8(blend(grey, source[k], factor))


@jit_uncounted
def enhance_brightness(source, target, factor):
    """Apply ImageEnhance.Brightness: blend with black."""
    for k in range(source.size):
        target[k] = np.uint8(blend(0, source[k], factor))


@jit_uncounted
def enhance_sharpness(source, target, height, width, factor):
    """Apply ImageEnhance.Sharpness: blend with the smoothed image, whose border is the image's own."""
    size = height * width
    copy(source, target)
    if min(height, width) < 3:
        return
    for c in range(3):
        above, here = source[c * size :], source[c * size + width :]
        below, out = source[c * size + 2 * width :], target[c * size + width :]
        # All inner rows are treated as one row; then their first and last pixels are restored.
        for k in range(1, (height - 2) * width - 1):
            smoothed = smooth(
                below[k - 1], below[k], below[k + 1],
                here[k - 1], here[k], here[k + 1],
                above[k - 1], above[k], above[k + 1],
            )  # fmt: skip
            out[k] = np.uint8(blend(smoothed, here[k], factor))
        for y in range(height - 2):
            out[y * width] = here[y * width]
            out[(y + 1) * width - 1] = here[(y + 1) * width - 1]


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
        enhance_contrast(source, target, np.float32(magnitude))
    elif op == draws.BRIGHTNESS:
        enhance_brightness(source, target, np.float32(magnitude))
    else:
        enhance_sharpness(source, target, height, width, np.float32(magnitude))

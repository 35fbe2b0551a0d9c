"""The CUDA engine's operations on one image: those that map values, and the choice among all of them.

Operations work on `Rows`, as those of `geometry` do, and are exact against Pillow (see `pixel`). A row starts at a
multiple of four bytes, and has a few bytes more than the image where its size is not a multiple of 12: so operations
take whole words of four values, or three words, which are four pixels. What they write beyond the image is not read.

Every operation reads the row `source` and writes all of the row `target`, another one. It returns without a barrier:
the caller synchronises the block before `target` is read or `source` is written. Conditions on operations and sizes are
the same for all threads of a block, so that all reach every barrier.
"""

from typing import NamedTuple

import numpy as np
from numba import cuda

from fastmagn_kernels.augmix_cuda.device import byte, num_threads, thread_number
from fastmagn_kernels.augmix_cuda.geometry import (
    BLACK,
    load_pixel,
    rotation_matrix,
    shear,
    shift,
    store_pixel,
    transform,
)
from fastmagn_kernels.augmix_cuda.words import pack, posterize_mask, solarize_word
from fastmagn_kernels.pixel import (
    autocontrast_line,
    blend,
    equalize_quotient,
    equalize_step,
    luma,
    mean_grey,
    smooth,
    stretch,
)
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.draws import ANGLE_UNITS_PER_DEGREE

BINS = 3 * 256  # of the histograms or tables of the three channels, one after another
_SEGMENT = 16  # bins that one thread adds up
SEGMENTS = BINS // _SEGMENT
_SEGMENTS_OF_CHANNEL = SEGMENTS // 3
SUMS = 3 * SEGMENTS
_ONE = np.uint64(1)
_TWO = np.uint64(2)


class Rows(NamedTuple):
    """The memory for the images of a block: the same bytes twice.

    Args:
        pixels: As values, uint8.
        words: As words, uint32.
    """

    pixels: np.ndarray
    words: np.ndarray


class Scratch(NamedTuple):
    """The shared memory of a block for its operations.

    Args:
        tables: The tables of the channels, uint8 [BINS].
        histograms: The histograms of the channels, int32 [BINS].
        segments: For each segment of the histograms, its sum, lowest and highest value: int32 [3 SEGMENTS].
        luma_sum: The sum of an image's luma, int32 [1].
    """

    tables: np.ndarray
    histograms: np.ndarray
    segments: np.ndarray
    luma_sum: np.ndarray


@cuda.jit(device=True)
def count_values(pixels, source, num_pixels, histograms):
    """Fill the histograms of the three channels."""
    k = thread_number()
    while k < BINS:
        histograms[k] = 0
        k = np.uint32(k + num_threads())
    cuda.syncthreads()
    k = thread_number()
    while k < num_pixels:
        red, green, blue = load_pixel(pixels, source + np.uint32(3 * k))
        cuda.atomic.add(histograms, np.uint32(red), 1)
        cuda.atomic.add(histograms, np.uint32(256 + green), 1)
        cuda.atomic.add(histograms, np.uint32(512 + blue), 1)
        k = np.uint32(k + num_threads())
    cuda.syncthreads()


@cuda.jit(device=True)
def sum_up_segments(histograms, segments):
    """Find the pixels of each segment of a histogram, and the lowest and the highest value that occur there."""
    item = thread_number()
    while item < SEGMENTS:
        first = np.uint32(item * _SEGMENT)
        total, low, high = np.int32(0), np.int32(255), np.int32(0)
        for i in range(_SEGMENT):
            count = histograms[np.uint32(first + i)]
            value = np.int32((first + i) & 255)
            total = np.int32(total + count)
            low = min(low, value) if count > 0 else low
            high = value if count > 0 else high
        segments[item] = total
        segments[np.uint32(item + SEGMENTS)] = low
        segments[np.uint32(item + 2 * SEGMENTS)] = high
        item = np.uint32(item + num_threads())
    cuda.syncthreads()


@cuda.jit(device=True)
def _channel_sums(item, segments):
    """Return what a segment's channel has below the segment and in all, and its lowest and highest value: int32."""
    start = np.uint32(item - item % _SEGMENTS_OF_CHANNEL)
    before, total, low, high = np.int32(0), np.int32(0), np.int32(255), np.int32(0)
    for i in range(_SEGMENTS_OF_CHANNEL):
        other = np.uint32(start + i)
        count = segments[other]
        before = np.int32(before + count) if other < item else before
        total = np.int32(total + count)
        low = min(low, segments[np.uint32(other + SEGMENTS)])
        high = max(high, segments[np.uint32(other + 2 * SEGMENTS)])
    return before, total, low, high


@cuda.jit(device=True)
def fill_tables(op, tables, histograms, segments):
    """Fill the tables of autocontrast or equalize; each thread fills the entries of a segment."""
    item = thread_number()
    while item < SEGMENTS:
        first = np.uint32(item * _SEGMENT)
        before, total, low, high = _channel_sums(item, segments)
        step = equalize_step(total, histograms[np.uint32((first & np.uint32(0xFF00)) + high)])
        per_step = 1.0 / step if step > 0 else 0.0
        scale, offset = autocontrast_line(low, high)
        for i in range(_SEGMENT):
            value = np.int32((first + i) & 255)
            entry = value
            if op == draws.AUTOCONTRAST:
                entry = stretch(value, scale, offset)
            elif step > 0:
                entry = equalize_quotient(np.int32(step // 2 + before), per_step)
            tables[np.uint32(first + i)] = entry
            before = np.int32(before + histograms[np.uint32(first + i)])
        item = np.uint32(item + num_threads())
    cuda.syncthreads()


@cuda.jit(device=True)
def fill_blends(grey, factor, tables):
    """Fill all three tables with what `blend` makes of a value and one grey."""
    k = thread_number()
    while k < 256:
        entry = blend(grey, k, factor)
        tables[k] = entry
        tables[np.uint32(k + 256)] = entry
        tables[np.uint32(k + 512)] = entry
        k = np.uint32(k + num_threads())
    cuda.syncthreads()


@cuda.jit(device=True)
def look_up(word, first, second, third, fourth, tables):
    """Look up the four bytes of a word, each in the table of its channel, 0..2: uint32."""
    return pack(
        tables[np.uint32(256 * first + byte(word, 0))],
        tables[np.uint32(256 * second + byte(word, 1))],
        tables[np.uint32(256 * third + byte(word, 2))],
        tables[np.uint32(256 * fourth + byte(word, 3))],
    )


@cuda.jit(device=True)
def apply_tables(rows, source, target, num_pixels, tables):
    """Change each channel by its table. Three words are four pixels, so that the channel of each byte is known."""
    pixels, words = rows.pixels, rows.words
    q, quads = thread_number(), np.uint32(num_pixels >> np.uint32(2))
    place = np.uint32(np.uint32(source >> np.uint32(2)) + 3 * q)
    offset = np.uint32(np.uint32(target >> np.uint32(2)) - np.uint32(source >> np.uint32(2)))
    while q < quads:
        i, k = np.uint64(place), np.uint64(np.uint32(place + offset))
        words[k] = look_up(words[i], 0, 1, 2, 0, tables)
        words[k + _ONE] = look_up(words[i + _ONE], 1, 2, 0, 1, tables)
        words[k + _TWO] = look_up(words[i + _TWO], 2, 0, 1, 2, tables)
        q, place = np.uint32(q + num_threads()), np.uint32(place + 3 * num_threads())
    p = np.uint32(4 * quads + thread_number())
    while p < num_pixels:  # up to three pixels are left
        red, green, blue = load_pixel(pixels, source + np.uint32(3 * p))
        red, green, blue = tables[np.uint32(red)], tables[np.uint32(256 + green)], tables[np.uint32(512 + blue)]
        store_pixel(pixels, target + np.uint32(3 * p), red, green, blue)
        p = np.uint32(p + num_threads())


@cuda.jit(device=True)
def posterize(words, source, target, num_words, bits):
    """Apply ImageOps.posterize."""
    mask = posterize_mask(bits)
    i, k = thread_number(), np.uint32(np.uint32(target >> np.uint32(2)) + thread_number())
    offset = np.uint32(np.uint32(source >> np.uint32(2)) - np.uint32(target >> np.uint32(2)))
    while i < num_words:
        words[k] = np.uint32(words[np.uint32(k + offset)] & mask)
        i, k = np.uint32(i + num_threads()), np.uint32(k + num_threads())


@cuda.jit(device=True)
def solarize(words, source, target, num_words, threshold):
    """Apply ImageOps.solarize."""
    i, k = thread_number(), np.uint32(np.uint32(target >> np.uint32(2)) + thread_number())
    offset = np.uint32(np.uint32(source >> np.uint32(2)) - np.uint32(target >> np.uint32(2)))
    while i < num_words:
        words[k] = solarize_word(words[np.uint32(k + offset)], threshold)
        i, k = np.uint32(i + num_threads()), np.uint32(k + num_threads())


@cuda.jit(device=True)
def enhance_color(pixels, source, target, num_pixels, factor):
    """Apply ImageEnhance.Color: blend each pixel with its luma."""
    k = thread_number()
    while k < num_pixels:
        red, green, blue = load_pixel(pixels, source + np.uint32(3 * k))
        grey = luma(red, green, blue)
        store_pixel(
            pixels,
            target + np.uint32(3 * k),
            blend(grey, red, factor),
            blend(grey, green, factor),
            blend(grey, blue, factor),
        )
        k = np.uint32(k + num_threads())


@cuda.jit(device=True)
def grey_of(pixels, source, num_pixels, luma_sum):
    """Return the grey that ImageEnhance.Contrast blends with, int32. `luma_sum`, int32 [1], is scratch."""
    if thread_number() == 0:
        luma_sum[0] = 0
    cuda.syncthreads()
    own = np.int32(0)
    k = thread_number()
    while k < num_pixels:
        red, green, blue = load_pixel(pixels, source + np.uint32(3 * k))
        own = np.int32(own + luma(red, green, blue))
        k = np.uint32(k + num_threads())
    cuda.atomic.add(luma_sum, 0, own)
    cuda.syncthreads()
    return mean_grey(luma_sum[0], np.int32(num_pixels))


@cuda.jit(device=True)
def enhance_sharpness(pixels, source, target, height, width, factor):
    """Apply ImageEnhance.Sharpness: blend with the smoothed image, whose border is the image's own."""
    row = np.uint32(3 * width)
    x = np.int32(cuda.threadIdx.x)
    while x < width:
        y = np.int32(cuda.threadIdx.y)
        while y < height:
            border = x == 0 or x == width - 1 or y == 0 or y == height - 1
            for c in range(3):
                k = np.uint32(np.uint32(3 * np.int32(y * width + x)) + c)
                here = np.uint32(source + k)
                value = pixels[here]
                if not border:
                    lower, upper = np.uint32(here + row), np.uint32(here - row)
                    smoothed = smooth(
                        pixels[np.uint32(lower - 3)], pixels[lower], pixels[np.uint32(lower + 3)],
                        pixels[np.uint32(here - 3)], value, pixels[np.uint32(here + 3)],
                        pixels[np.uint32(upper - 3)], pixels[upper], pixels[np.uint32(upper + 3)],
                    )  # fmt: skip
                    value = np.uint8(blend(smoothed, value, factor))
                pixels[np.uint32(target + k)] = value
            y = np.int32(y + cuda.blockDim.y)
        x = np.int32(x + cuda.blockDim.x)


@cuda.jit(device=True)
def blend_with(brightness, rows, source, target, num_pixels, factor, scratch):
    """Apply ImageEnhance.Brightness, which blends with black, or else ImageEnhance.Contrast."""
    grey = np.int32(0) if brightness else grey_of(rows.pixels, source, num_pixels, scratch.luma_sum)
    fill_blends(grey, factor, scratch.tables)
    apply_tables(rows, source, target, num_pixels, scratch.tables)


@cuda.jit(device=True)
def apply_operation(op, magnitude, rows, source, target, height, width, scratch, rotation_table):
    """Apply one AugMix operation, by its id, to the row at the byte `source` of `rows`."""
    pixels = rows.pixels
    if op == draws.ROTATE and magnitude != 0.0:
        angle = np.int32(magnitude * ANGLE_UNITS_PER_DEGREE)
        matrix = rotation_matrix(angle, rotation_table, height, width)
        transform(pixels, source, target, height, width, matrix, BLACK)
    elif op == draws.SHEAR_X or op == draws.SHEAR_Y:
        shear(pixels, source, target, height, width, magnitude, op == draws.SHEAR_X)
    elif op == draws.TRANSLATE_X or op == draws.TRANSLATE_Y or op == draws.ROTATE:
        dx = np.int32(magnitude) if op == draws.TRANSLATE_X else np.int32(0)
        dy = np.int32(magnitude) if op == draws.TRANSLATE_Y else np.int32(0)
        shift(pixels, np.uint64(source), pixels, target, height, width, dx, dy, False, BLACK)
    else:
        change_values(op, magnitude, rows, source, target, height, width, scratch)


@cuda.jit(device=True)
def change_values(op, magnitude, rows, source, target, height, width, scratch):
    """Apply one AugMix operation that does not move pixels, by its id."""
    pixels, words = rows.pixels, rows.words
    num_pixels = np.uint32(height * width)
    num_words = np.uint32(np.uint32(3 * num_pixels + 3) >> np.uint32(2))
    if op == draws.POSTERIZE:
        posterize(words, source, target, num_words, np.int32(magnitude))
    elif op == draws.SOLARIZE:
        solarize(words, source, target, num_words, np.int32(magnitude))
    elif op == draws.COLOR:
        enhance_color(pixels, source, target, num_pixels, np.float32(magnitude))
    elif op == draws.CONTRAST or op == draws.BRIGHTNESS:
        blend_with(op == draws.BRIGHTNESS, rows, source, target, num_pixels, np.float32(magnitude), scratch)
    elif op == draws.SHARPNESS:
        enhance_sharpness(pixels, source, target, height, width, np.float32(magnitude))
    else:
        count_values(pixels, source, num_pixels, scratch.histograms)
        sum_up_segments(scratch.histograms, scratch.segments)
        fill_tables(op, scratch.tables, scratch.histograms, scratch.segments)
        apply_tables(rows, source, target, num_pixels, scratch.tables)

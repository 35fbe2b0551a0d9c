"""The CUDA engine's operations on one image, each by all threads of a block, exact against Pillow (see `pixel`).

An image is a flat uint8 row [H W 3], channels last. Every operation reads `source` and writes all of `target`, another
row. It returns without a barrier: the caller synchronises the block before `target` is read or `source` is written.
Conditions on operations and sizes are the same for all threads of a block, so that all reach every barrier.

A block is two-dimensional: geometric operations use a thread's x for columns and its y for rows, and need no division.
Loops are `while` loops because numba divides to count the steps of a range, which costs more than a pixel. Indices are
uint32 because a signed index can count from the end, which costs three instructions per access.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import cuda

from fastmagn_kernels.pixel import (
    MAX_ANGLE_UNITS,
    autocontrast_entry,
    bilinear,
    blend,
    clip_index,
    equalize_entry,
    equalize_step,
    luma,
    mean_grey,
    posterize_entry,
    rotation_offset,
    smooth,
    solarize_entry,
)
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.draws import ANGLE_UNITS_PER_DEGREE

BINS = 3 * 256  # of the histograms or tables of the three channels, one after another
_SEGMENT = 16  # bins that one thread adds up
SEGMENTS = BINS // _SEGMENT
_SEGMENTS_OF_CHANNEL = SEGMENTS // 3


class Scratch(NamedTuple):
    """The shared memory of a block for its operations.

    Args:
        tables: The tables of the channels, uint8 [BINS].
        histograms: The histograms of the channels, int32 [BINS].
        segments: For each segment of the histograms, its sum, lowest and highest value: int32 [3, SEGMENTS].
        luma_sum: The sum of an image's luma, int32 [1].
    """

    tables: np.ndarray
    histograms: np.ndarray
    segments: np.ndarray
    luma_sum: np.ndarray


@cuda.jit(device=True)
def thread_number():
    """Return the number of this thread in its block."""
    return cuda.threadIdx.x + cuda.blockDim.x * cuda.threadIdx.y


@cuda.jit(device=True)
def num_threads():
    """Return the number of threads in the block."""
    return cuda.blockDim.x * cuda.blockDim.y


@cuda.jit(device=True)
def shift(source, target, height, width, dx, dy, mirror):
    """Shift an image: target(x, y) = source(x + dx, y + dy), and black outside. `mirror` then flips the result."""
    y = cuda.threadIdx.y
    while y < height:
        x = cuda.threadIdx.x
        while x < width:
            source_x = (width - 1 - x if mirror else x) + dx
            source_y = y + dy
            inside = 0 <= source_x < width and 0 <= source_y < height
            i = np.uint32(3 * (source_y * width + source_x))
            k = np.uint32(3 * (y * width + x))
            for c in range(3):
                target[np.uint32(k + c)] = source[np.uint32(i + c)] if inside else np.uint8(0)
            x += cuda.blockDim.x
        y += cuda.blockDim.y


@cuda.jit(device=True)
def affine(source, target, height, width, matrix):
    """Transform as Image.transform does, by a matrix of six float64 and bilinear, in Pillow's order of operations."""
    xx, xy, x1, yx, yy, y1 = matrix
    y = cuda.threadIdx.y
    while y < height:
        x = cuda.threadIdx.x
        while x < width:
            source_x = xx * (x + 0.5) + xy * (y + 0.5) + x1
            source_y = yx * (x + 0.5) + yy * (y + 0.5) + y1
            inside = 0.0 <= source_x < width and 0.0 <= source_y < height
            k = np.uint32(3 * (y * width + x))
            if inside:
                source_x -= 0.5
                source_y -= 0.5
                x0, y0 = math.floor(source_x), math.floor(source_y)
                dx, dy = source_x - x0, source_y - y0
                left, right = 3 * clip_index(np.int32(x0), width), 3 * clip_index(np.int32(x0) + 1, width)
                top = 3 * width * clip_index(np.int32(y0), height)
                bottom = 3 * width * clip_index(np.int32(y0) + 1, height)
                for c in range(3):
                    target[np.uint32(k + c)] = bilinear(
                        source[np.uint32(top + left + c)],
                        source[np.uint32(top + right + c)],
                        source[np.uint32(bottom + left + c)],
                        source[np.uint32(bottom + right + c)],
                        dx,
                        dy,
                    )
            else:
                for c in range(3):
                    target[np.uint32(k + c)] = 0
            x += cuda.blockDim.x
        y += cuda.blockDim.y


@cuda.jit(device=True)
def rotate(source, target, height, width, angle, rotation_table):
    """Rotate as Image.rotate does, by `angle` / 64 degrees counter-clockwise, bilinear."""
    cosine, sine = rotation_table[angle + MAX_ANGLE_UNITS, 0], rotation_table[angle + MAX_ANGLE_UNITS, 1]
    offset_x, offset_y = rotation_offset(cosine, sine, height, width)
    affine(source, target, height, width, (cosine, sine, offset_x, -sine, cosine, offset_y))


@cuda.jit(device=True)
def change_by_tables(op, source, target, scratch):
    """Apply autocontrast or equalize, by a table for each channel that its histogram gives."""
    tables, histograms, segments = scratch.tables, scratch.histograms, scratch.segments
    size = np.uint32(source.size)
    k = thread_number()
    while k < BINS:
        histograms[np.uint32(k)] = 0
        k += num_threads()
    cuda.syncthreads()
    k = 3 * thread_number()
    while k < size:
        for c in range(3):
            cuda.atomic.add(histograms, np.uint32(256 * c + np.int32(source[np.uint32(k + c)])), 1)
        k += 3 * num_threads()
    cuda.syncthreads()
    _sum_up_segments(histograms, segments)
    cuda.syncthreads()
    _fill_tables(op, tables, histograms, segments)
    cuda.syncthreads()
    k = 3 * thread_number()
    while k < size:
        for c in range(3):
            target[np.uint32(k + c)] = tables[np.uint32(256 * c + np.int32(source[np.uint32(k + c)]))]
        k += 3 * num_threads()


@cuda.jit(device=True)
def _sum_up_segments(histograms, segments):
    """Find the pixels of each segment of a histogram, and the lowest and the highest value that occur there."""
    item = thread_number()
    while item < SEGMENTS:
        first = item * _SEGMENT
        total, low, high = 0, 255, 0
        for i in range(_SEGMENT):
            count = histograms[np.uint32(first + i)]
            if count > 0:
                value = (first + i) % 256
                total += count
                low = min(low, value)
                high = max(high, value)
        segments[0, item], segments[1, item], segments[2, item] = total, low, high
        item += num_threads()


@cuda.jit(device=True)
def _fill_tables(op, tables, histograms, segments):
    """Fill the entries of each segment, from the sums of all segments of its channel."""
    item = thread_number()
    while item < SEGMENTS:
        first = item * _SEGMENT
        channel = item // _SEGMENTS_OF_CHANNEL
        before, total, low, high = 0, 0, 255, 0
        for i in range(_SEGMENTS_OF_CHANNEL):
            other = channel * _SEGMENTS_OF_CHANNEL + i
            before += segments[0, other] if other < item else 0
            total += segments[0, other]
            low = min(low, segments[1, other])
            high = max(high, segments[2, other])
        step = equalize_step(total, histograms[256 * channel + high])
        for i in range(_SEGMENT):
            value = (first + i) % 256
            if op == draws.AUTOCONTRAST:
                tables[first + i] = autocontrast_entry(value, low, high)
            else:
                tables[first + i] = equalize_entry(value, before, step)
            before += histograms[first + i]
        item += num_threads()


@cuda.jit(device=True)
def change_values(op, source, target, amount):
    """Posterize to `amount` bits, or solarize from the level `amount` on."""
    k = thread_number()
    while k < source.size:
        value = np.int32(source[np.uint32(k)])
        entry = posterize_entry(value, amount) if op == draws.POSTERIZE else solarize_entry(value, amount)
        target[np.uint32(k)] = entry
        k += num_threads()


@cuda.jit(device=True)
def enhance_color(source, target, factor):
    """Apply ImageEnhance.Color: blend each pixel with its luma."""
    k = 3 * thread_number()
    while k < source.size:
        grey = luma(source[np.uint32(k)], source[np.uint32(k + 1)], source[np.uint32(k + 2)])
        for c in range(3):
            target[np.uint32(k + c)] = blend(grey, source[np.uint32(k + c)], factor)
        k += 3 * num_threads()


@cuda.jit(device=True)
def enhance_contrast(source, target, factor, luma_sum):
    """Apply ImageEnhance.Contrast: blend with the image's mean luma. `luma_sum`, int32 [1], is scratch."""
    if thread_number() == 0:
        luma_sum[0] = 0
    cuda.syncthreads()
    own = np.int32(0)
    k = 3 * thread_number()
    while k < source.size:
        own += luma(source[np.uint32(k)], source[np.uint32(k + 1)], source[np.uint32(k + 2)])
        k += 3 * num_threads()
    cuda.atomic.add(luma_sum, 0, own)
    cuda.syncthreads()
    blend_with(mean_grey(luma_sum[0], source.size // 3), source, target, factor)


@cuda.jit(device=True)
def blend_with(grey, source, target, factor):
    """Blend with one grey; with black, this is ImageEnhance.Brightness."""
    k = thread_number()
    while k < source.size:
        target[np.uint32(k)] = blend(grey, source[np.uint32(k)], factor)
        k += num_threads()


@cuda.jit(device=True)
def enhance_sharpness(source, target, height, width, factor):
    """Apply ImageEnhance.Sharpness: blend with the smoothed image, whose border is the image's own."""
    row = 3 * width
    y = cuda.threadIdx.y
    while y < height:
        x = cuda.threadIdx.x
        while x < width:
            border = x == 0 or x == width - 1 or y == 0 or y == height - 1
            for c in range(3):
                k = y * row + 3 * x + c
                value = source[np.uint32(k)]
                if border:
                    target[np.uint32(k)] = value
                else:
                    lower, upper = k + row, k - row
                    smoothed = smooth(
                        source[np.uint32(lower - 3)], source[np.uint32(lower)], source[np.uint32(lower + 3)],
                        source[np.uint32(k - 3)], value, source[np.uint32(k + 3)],
                        source[np.uint32(upper - 3)], source[np.uint32(upper)], source[np.uint32(upper + 3)],
                    )  # fmt: skip
                    target[np.uint32(k)] = blend(smoothed, value, factor)
            x += cuda.blockDim.x
        y += cuda.blockDim.y


@cuda.jit(device=True)
def apply_operation(op, magnitude, source, target, height, width, scratch, rotation_table):
    """Apply one AugMix operation, by its id."""
    if op == draws.ROTATE:
        rotate(source, target, height, width, ANGLE_UNITS_PER_DEGREE * np.int64(magnitude), rotation_table)
    elif op == draws.SHEAR_X:
        affine(source, target, height, width, (1.0, magnitude, 0.0, 0.0, 1.0, 0.0))
    elif op == draws.SHEAR_Y:
        affine(source, target, height, width, (1.0, 0.0, 0.0, magnitude, 1.0, 0.0))
    elif op == draws.TRANSLATE_X:
        shift(source, target, height, width, np.int64(magnitude), 0, False)
    elif op == draws.TRANSLATE_Y:
        shift(source, target, height, width, 0, np.int64(magnitude), False)
    elif op == draws.POSTERIZE or op == draws.SOLARIZE:
        change_values(op, source, target, np.int64(magnitude))
    elif op == draws.COLOR:
        enhance_color(source, target, np.float32(magnitude))
    elif op == draws.CONTRAST:
        enhance_contrast(source, target, np.float32(magnitude), scratch.luma_sum)
    elif op == draws.BRIGHTNESS:
        blend_with(0, source, target, np.float32(magnitude))
    elif op == draws.SHARPNESS:
        enhance_sharpness(source, target, height, width, np.float32(magnitude))
    else:
        change_by_tables(op, source, target, scratch)

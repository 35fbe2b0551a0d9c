"""Blurs of the corruption sets: Gaussian, defocus, zoom, glass, motion. uint8 in, uint8 out.

The arithmetic has the precision and the order of the computation that made the published sets (SciPy's, float64; the
sum of the zooms, float32). Results are truncated to uint8, so on flat areas the last bit of a sum decides a level.
A row is W * 3 interleaved values: a step to the next pixel is then a contiguous shift, which vectorises.
"""

import math
from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.stream import fill_words, first_word
from fastmagn_kernels.random.rng import uniform

_CHANNELS = 3


class Zoom(NamedTuple):
    """How a central zoom resamples an image, bilinearly.

    Output line y is (1 - w) * line r + w * line r + 1, where r = rows[y], w = row_weights[y], and r + 1 is clipped to
    the last line; the columns alike.

    Args:
        rows: int64 [H].
        row_weights: float64 [H].
        columns: int64 [W].
        column_weights: float64 [W].
    """

    rows: np.ndarray
    row_weights: np.ndarray
    columns: np.ndarray
    column_weights: np.ndarray


class Zooms(NamedTuple):
    """K zooms, of which zoom k counts `repeats[k]` times.

    Args:
        repeats: int64 [K].
        rows: As in `Zoom`, int64 [K, H].
        row_weights: float64 [K, H].
        columns: int64 [K, W].
        column_weights: float64 [K, W].
    """

    repeats: np.ndarray
    rows: np.ndarray
    row_weights: np.ndarray
    columns: np.ndarray
    column_weights: np.ndarray


@jit
def unit_to_level(x):
    """Convert a float to a uint8, as the published sets do: clipped to [0, 1], times 255, truncated."""
    return np.uint8(min(max(x, 0.0), 1.0) * 255.0)


@jit
def reflect_index(i, n):
    """Map i to an index in 0..n - 1, where the border mirrors and repeats its edge: c b a | a b c | c b a."""
    if 0 <= i < n:  # nearly always; a division costs as much as ten of these tests
        return i
    i = i % (2 * n)
    return i if i < n else 2 * n - 1 - i


@jit
def mirror_index(i, n):
    """Map i to an index in 0..n - 1, where the border mirrors without repeating its edge: c b | a b c | b a."""
    if 0 <= i < n:
        return i
    i = i % (2 * n - 2)
    return i if i < n else 2 * n - 2 - i


@jit(per_constant=True)
def gaussian_filter(image, row_weights, column_weights, channels, reflect):
    """Filter `image`, float64 [H, W * channels], in place with symmetric weights, each float64 [2r + 1] with its own r.

    SciPy's order is kept: first the vertical pass (`row_weights`), and in each pass first the outermost pair of taps.
    The border repeats the edge value (SciPy's "nearest") or, if `reflect`, mirrors the image (SciPy's "reflect").
    """
    height, length = image.shape
    radius = row_weights.size // 2
    width = length // channels
    if radius == 0 and column_weights.size == 1:
        return
    columns = np.empty((height, length), np.float64)
    for y in range(height):
        for j in range(length):
            columns[y, j] = row_weights[radius] * image[y, j]
        for k in range(radius):
            offset = radius - k
            above = reflect_index(y - offset, height) if reflect else max(y - offset, 0)
            below = reflect_index(y + offset, height) if reflect else min(y + offset, height - 1)
            for j in range(length):
                columns[y, j] += (image[above, j] + image[below, j]) * row_weights[k]
    radius = column_weights.size // 2
    line = np.empty(length + 2 * radius * channels, np.float64)
    for y in range(height):
        for x in range(-radius, width + radius):
            source = reflect_index(x, width) if reflect else min(max(x, 0), width - 1)
            for c in range(channels):
                line[(x + radius) * channels + c] = columns[y, source * channels + c]
        for j in range(length):
            image[y, j] = column_weights[radius] * line[j + radius * channels]
        for k in range(radius):
            for j in range(length):
                pair = line[j + k * channels] + line[j + (2 * radius - k) * channels]
                image[y, j] += pair * column_weights[k]


@jit
def to_unit(levels):
    """Convert uint8 [H, L] to float64 [H, L] in [0, 1]."""
    unit = np.empty(levels.shape, np.float64)
    for y in range(levels.shape[0]):
        for j in range(levels.shape[1]):
            unit[y, j] = levels[y, j] / 255.0
    return unit


@jit
def gaussian_blur_image(out, image, weights):
    """Blur one image, uint8 [H, W * 3], with `weights`, float64 [2r + 1]; `out` is like the image, or the image."""
    unit = to_unit(image)
    gaussian_filter(unit, weights, weights, _CHANNELS, False)
    for y in range(unit.shape[0]):
        for j in range(unit.shape[1]):
            out[y, j] = unit_to_level(unit[y, j])


@jit(nogil=True)
def gaussian_blur_batch(out, images, weights):
    """Blur `images`, uint8 [N, H, W * 3], with `weights`, float64 [2r + 1]; `out` is like `images`."""
    for i in range(images.shape[0]):
        gaussian_blur_image(out[i], images[i], weights)


@jit
def filter_image(out, image, tap_dy, tap_dx, tap_weights):
    """Filter one image of `filter_batch`."""
    height, length = image.shape
    width = length // _CHANNELS
    reach = max(-tap_dx.min(), tap_dx.max())
    padded = np.empty((height, length + 2 * reach * _CHANNELS), np.float64)
    for y in range(height):
        for x in range(-reach, width + reach):
            source = mirror_index(x, width)
            for c in range(_CHANNELS):
                padded[y, (x + reach) * _CHANNELS + c] = image[y, source * _CHANNELS + c] / 255.0
    row = np.empty(length, np.float64)
    for y in range(height):
        row[:] = 0.0
        for t in range(tap_weights.size):
            source = mirror_index(y + tap_dy[t], height)
            start = (reach + tap_dx[t]) * _CHANNELS
            for j in range(length):
                row[j] += padded[source, start + j] * tap_weights[t]
        for j in range(length):
            out[y, j] = unit_to_level(row[j])


@jit(nogil=True)
def filter_batch(out, images, tap_dy, tap_dx, tap_weights):
    """Correlate `images`, uint8 [N, H, W * 3], with the taps, int64 [T], int64 [T] and float64 [T].

    The border mirrors without repeating its edge. Products are added in the order of the taps. `out` is like `images`.
    """
    for i in range(images.shape[0]):
        filter_image(out[i], images[i], tap_dy, tap_dx, tap_weights)


@jit
def add_zoomed(total, unit, repeats, zoom):
    """Resample `unit`, float32 [H, W * 3], by a `Zoom`, and add it `repeats` times to `total`, float32 [H, W * 3]."""
    rows, row_weights, columns, column_weights = zoom
    height, length = unit.shape
    width = length // _CHANNELS
    line, row = np.empty(length, np.float64), np.empty(length, np.float32)
    for y in range(height):
        upper, lower, w = rows[y], min(rows[y] + 1, height - 1), row_weights[y]
        for j in range(length):
            line[j] = (1.0 - w) * unit[upper, j] + w * unit[lower, j]
        for x in range(width):
            left, right, w = columns[x] * _CHANNELS, min(columns[x] + 1, width - 1) * _CHANNELS, column_weights[x]
            for c in range(_CHANNELS):
                row[x * _CHANNELS + c] = (1.0 - w) * line[left + c] + w * line[right + c]
        for _ in range(repeats):
            for j in range(length):
                total[y, j] += row[j]


@jit
def zoom_blur_image(out, image, zooms):
    """Blur one image of `zoom_blur_batch`."""
    unit = to_unit(image).astype(np.float32)
    total = np.zeros_like(unit)
    for k in range(zooms.repeats.size):
        zoom = Zoom(zooms.rows[k], zooms.row_weights[k], zooms.columns[k], zooms.column_weights[k])
        add_zoomed(total, unit, zooms.repeats[k], zoom)
    count = np.float32(zooms.repeats.sum() + 1)
    for y in range(unit.shape[0]):
        for j in range(unit.shape[1]):
            mean = (unit[y, j] + total[y, j]) / count
            out[y, j] = np.uint8(min(max(mean, np.float32(0)), np.float32(1)) * np.float32(255))


@jit(nogil=True)
def zoom_blur_batch(out, images, zooms):
    """Average each of `images`, uint8 [N, H, W * 3], and its `Zooms`; `out` is like `images`."""
    for i in range(images.shape[0]):
        zoom_blur_image(out[i], images[i], zooms)


@jit
def copy_levels(out, image):
    """Copy uint8 [H, L]. The assignment of a whole array would take numba seconds to compile, for its checks."""
    for y in range(image.shape[0]):
        for j in range(image.shape[1]):
            out[y, j] = image[y, j]


@jit
def offset_bits(reach):
    """Return how many random bits a pixel's row or column takes: exact for 2 offsets, else shares of 1/N to 2^-16."""
    return 1 if reach == 1 else 16


@jit
def shift_pixels(image, reach, words, first_word_of_pass):
    """Shift pixels in place, one pass of glass blur: each takes the value of another, -reach..reach - 1 px away.

    The offset is drawn for each direction. The source scans from the bottom right and "swaps" array views, which swaps
    nothing: one pixel is overwritten, and the other keeps its value. With a reach of 1 px the value comes from a pixel
    that has not been visited yet, so a pass is a gather. Rows and columns up to `reach`, and the last `reach` - 1, do
    not change. `image` is uint8 [H, W * 3]; pixel q reads the q-th 2 or 32 bits (first the row's) of the pass from
    `words`, uint32.
    """
    height, length = image.shape
    width = length // _CHANNELS
    half = offset_bits(reach)
    mask = (1 << half) - 1
    for y in range(height - reach, reach, -1):
        for x in range(width - reach, reach, -1):
            q = y * width + x
            first_bit = q * 2 * half
            bits = np.int64(words[first_word_of_pass + (first_bit >> 5)]) >> (first_bit & 31)
            source_y = y + reach - 1 - (((bits & mask) * 2 * reach) >> half)
            source = (x + reach - 1 - ((((bits >> half) & mask) * 2 * reach) >> half)) * _CHANNELS
            target = x * _CHANNELS
            image[y, target] = image[source_y, source]
            image[y, target + 1] = image[source_y, source + 1]
            image[y, target + 2] = image[source_y, source + 2]


@jit
def glass_blur_image(out, image, weights, reach, passes, stream, index):
    """Blur one image of `glass_blur_batch`."""
    height, length = image.shape
    words_in_pass = (height * (length // _CHANNELS) * 2 * offset_bits(reach) + 127) // 128 * 4  # whole blocks
    words = np.empty(passes * words_in_pass, np.uint32)
    fill_words(words, stream, index)
    copy_levels(out, image)
    for stage in range(2):  # a loop, because LLVM would compile two calls twice: 4 s
        gaussian_blur_image(out, out, weights)
        if stage == 0:
            for k in range(passes):
                shift_pixels(out, reach, words, k * words_in_pass)


@jit(nogil=True)
def glass_blur_batch(out, images, weights, reach, passes, stream, indices):
    """Blur, shift pixels by up to `reach` px `passes` times, and blur again.

    `images` and `out` are uint8 [N, H, W * 3], `weights` as in `gaussian_filter`.
    """
    for i in range(images.shape[0]):
        glass_blur_image(out[i], images[i], weights, reach, passes, stream, indices[i])


@jit(per_constant=True)
def motion_filter(out, image, weights, angle_deg, channels):
    """Apply ImageMagick's motion blur: tap t reads the pixel t steps away in the direction `angle_deg`.

    Beyond the border, the edge is repeated. `image` contains levels, [H, W * channels]; `out` is uint8 of this shape.
    `weights` is float32 [T]; the sums have the same precision, and are rounded to the nearest level.
    """
    height, length = image.shape
    width = length // channels
    reach = weights.size - 1
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    padded = np.empty((height, length + 2 * reach * channels), np.float32)
    for y in range(height):
        for x in range(-reach, width + reach):
            source = min(max(x, 0), width - 1)
            for c in range(channels):
                padded[y, (x + reach) * channels + c] = image[y, source * channels + c]
    row = np.empty(length, np.float32)
    for y in range(height):
        row[:] = 0.5
        for t in range(weights.size):
            source = min(max(y + math.ceil(t * sine - 0.5), 0), height - 1)
            start = (reach + math.ceil(t * cosine - 0.5)) * channels
            for j in range(row.size):
                row[j] += weights[t] * padded[source, start + j]
        for j in range(row.size):
            out[y, j] = np.uint8(min(row[j], np.float32(255)))


@jit(nogil=True)
def motion_blur_batch(out, images, weights, max_angle_deg, stream, indices):
    """Blur each of `images`, uint8 [N, H, W * 3], in a direction uniform within +-`max_angle_deg`.

    `out` is like `images`; `weights` is as in `motion_filter`.
    """
    for i in range(images.shape[0]):
        u = uniform(first_word(stream, indices[i], 0))
        motion_filter(out[i], images[i], weights, (2.0 * u - 1.0) * max_angle_deg, _CHANNELS)

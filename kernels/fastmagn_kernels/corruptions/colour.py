"""Corruptions of colour and resolution: brightness, saturation, contrast, pixelation. uint8 in, uint8 out.

Float64 keeps the order of scikit-image's colour conversions and of NumPy's broadcasting, because results are truncated.
Pixelation is Pillow's own fixed-point resampling.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import unit_to_level

_PRECISION_BITS = 22
_HALF = 1 << (_PRECISION_BITS - 1)


@jit
def rgb_to_hsv(red, green, blue):
    """Convert RGB to hue, saturation, value, float64 in [0, 1]. Equal maxima count as blue, then green, then red."""
    value = max(red, green, blue)
    delta = value - min(red, green, blue)
    if delta == 0.0:
        return 0.0, 0.0, value
    if blue == value:
        sector = 4.0 + (red - green) / delta
    elif green == value:
        sector = 2.0 + (blue - red) / delta
    else:
        sector = (green - blue) / delta
    hue = sector / 6.0
    return (hue + 1.0 if hue < 0.0 else hue), delta / value, value


@jit
def hsv_to_rgb(hue, saturation, value):
    """Convert hue, saturation, value to RGB, float64 in [0, 1]."""
    sector = math.floor(hue * 6.0)
    f = hue * 6.0 - sector
    p = value * (1.0 - saturation)
    q = value * (1.0 - f * saturation)
    t = value * (1.0 - (1.0 - f) * saturation)
    k = int(sector) % 6
    if k == 0:
        return value, t, p
    if k == 1:
        return q, value, p
    if k == 2:
        return p, value, t
    if k == 3:
        return p, q, value
    if k == 4:
        return t, p, value
    return value, p, q


@jit(nogil=True)
def hsv_batch(out, images, saturation_factor, saturation_shift, value_shift):
    """Scale and shift the saturation, shift the value, and clip both; `images` and `out` are uint8 [N, P, 3]."""
    for i in range(images.shape[0]):
        for j in range(images.shape[1]):
            red, green, blue = images[i, j, 0] / 255.0, images[i, j, 1] / 255.0, images[i, j, 2] / 255.0
            hue, saturation, value = rgb_to_hsv(red, green, blue)
            saturation = min(max(saturation * saturation_factor + saturation_shift, 0.0), 1.0)
            value = min(max(value + value_shift, 0.0), 1.0)
            red, green, blue = hsv_to_rgb(hue, saturation, value)
            out[i, j, 0] = unit_to_level(red)
            out[i, j, 1] = unit_to_level(green)
            out[i, j, 2] = unit_to_level(blue)


@jit(nogil=True)
def contrast_batch(out, images, factor):
    """Scale each channel's distance from its mean over the image; `images` and `out` are uint8 [N, P, 3]."""
    for i in range(images.shape[0]):
        levels = np.empty(256, np.uint8)
        for c in range(3):
            mean = 0.0
            for j in range(images.shape[1]):
                mean += images[i, j, c] / 255.0
            mean /= images.shape[1]
            for level in range(256):
                levels[level] = unit_to_level((level / 255.0 - mean) * factor + mean)
            for j in range(images.shape[1]):
                out[i, j, c] = levels[images[i, j, c]]


@jit(per_constant=True)
def resample_columns(out, image, starts, weights, channels):
    """Resample `image`, uint8 [H, W * channels], to `out`, uint8 [H, W' * channels]: Pillow's horizontal pass.

    Output column x is the sum of weights[x] times the pixels from starts[x] on, rounded to uint8. `starts` is int64
    [W']; `weights` is int64 [W', K], in 2^-22, zero beyond a column's window.
    """
    width = image.shape[1] // channels
    for y in range(out.shape[0]):
        for x in range(starts.size):
            for c in range(channels):
                total = _HALF
                for k in range(min(weights.shape[1], width - starts[x])):
                    total += weights[x, k] * image[y, (starts[x] + k) * channels + c]
                out[y, x * channels + c] = np.uint8(min(max(total >> _PRECISION_BITS, 0), 255))


@jit
def resample_rows(out, image, starts, weights):
    """Resample `image`, uint8 [H, L], to `out`, uint8 [H', L]: Pillow's vertical pass, as in `resample_columns`."""
    total = np.empty(image.shape[1], np.int64)
    for y in range(starts.size):
        total[:] = _HALF
        for k in range(min(weights.shape[1], image.shape[0] - starts[y])):
            weight = weights[y, k]
            if weight != 0:
                for j in range(image.shape[1]):
                    total[j] += weight * image[starts[y] + k, j]
        for j in range(image.shape[1]):
            out[y, j] = np.uint8(min(max(total[j] >> _PRECISION_BITS, 0), 255))


@jit
def pixelate_image(out, image, down_x, down_y, up_x, up_y):
    """Pixelate one image of `pixelate_batch`."""
    height, length = image.shape
    small_width, small_height = down_x[0].size, down_y[0].size
    narrow = np.empty((height, small_width * 3), np.uint8)
    resample_columns(narrow, image, down_x[0], down_x[1], 3)
    small = np.empty((small_height, small_width * 3), np.uint8)
    resample_rows(small, narrow, down_y[0], down_y[1])
    wide = np.empty((small_height, length), np.uint8)
    resample_columns(wide, small, up_x[0], up_x[1], 3)
    resample_rows(out, wide, up_y[0], up_y[1])


@jit(nogil=True)
def pixelate_batch(out, images, down_x, down_y, up_x, up_y):
    """Resample `images`, uint8 [N, H, W * 3], down and up again; `out` is like `images`.

    Each of the last four arguments is a pair (starts, weights) of `resample_columns`.
    """
    for i in range(images.shape[0]):
        pixelate_image(out[i], images[i], down_x, down_y, up_x, up_y)

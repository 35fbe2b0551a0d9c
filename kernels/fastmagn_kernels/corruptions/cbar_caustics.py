"""C-bar's caustic refraction, an image seen through water that the sun lights: uint8 in, uint8 out.

The draws of an image are words 0 and 1 of slot 0: the time in 1/2..2, and the waves' scale in 0.75..1.25 of the image's
shorter side.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import gaussian_filter, unit_to_level
from fastmagn_kernels.corruptions.cbar_warp import bilinear_or_black
from fastmagn_kernels.corruptions.smooth_math import cosine, sine
from fastmagn_kernels.corruptions.stream import fill_words
from fastmagn_kernels.random.rng import uniform

_TURN = 6.28318530718  # as the source writes it
_WAVES = 5
_SHARPNESS = 0.005
_FLAT_NORMAL = 1.0 - 1e-3  # a steeper surface refracts
_REFRACTIVE_INDEX = 4.0


@jit(error_model="numpy")  # checks for divisions by zero would keep LLVM from vectorising
def fill_caustics(out, time, scale_px):
    """Fill `out`, float64 [H, W], with the brightness of the light on the ground, in [0, 1]."""
    height, width = out.shape
    i, j, total = np.empty(width), np.empty(width), np.empty(width)
    for y in range(height):
        p = (y / scale_px) % 1.0 * _TURN - 250.0
        for x in range(width):
            i[x], j[x], total[x] = p, (x / scale_px) % 1.0 * _TURN - 250.0, 1.0
        for n in range(_WAVES):
            t = time * (1.0 - 3.5 / (n + 1))
            for x in range(width):
                q = (x / scale_px) % 1.0 * _TURN - 250.0
                a = p + cosine(t - i[x]) + sine(t + j[x])
                b = q + sine(t - j[x]) + cosine(t + i[x])
                down, across = p * _SHARPNESS / sine(a + t), q * _SHARPNESS / cosine(b + t)
                total[x] += 1.0 / math.sqrt(down * down + across * across)
                i[x], j[x] = a, b
        for x in range(width):
            out[y, x] = min(abs(1.17 - (total[x] / _WAVES) ** 1.4) ** 8.0, 1.0)


@jit
def refraction(slope_y, slope_x):
    """Return how far light from above is bent by a surface with the normal (slope_y, slope_x, 1): down and right."""
    length = math.sqrt(slope_y * slope_y + slope_x * slope_x + 1.0)
    if 1.0 / length >= _FLAT_NORMAL:
        return 0.0, 0.0
    sine_out = math.sqrt(1.0 - 1.0 / (length * length)) / _REFRACTIVE_INDEX
    bend = (math.sqrt(1.0 - sine_out * sine_out) - 1.0 / (length * _REFRACTIVE_INDEX)) / length
    return slope_y * bend, slope_x * bend


@jit(nogil=True)
def caustics_batch(out, images, lens_share, lighting, weights, stream, indices):
    """Refract `images`, uint8 [N, H, W, 3], by waves, and light them; `out` is like `images`.

    `lens_share` is the depth in sides, `lighting` the brightness of a slope of 1; `weights`, float64 [2r + 1], smooth
    the waves.
    """
    _, height, width, _ = images.shape
    side = min(height, width)
    words = np.empty(2, np.uint32)
    waves = np.empty((height + 2, width + 2))
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        light = np.empty((height, width))
        fill_caustics(light, 0.5 + 1.5 * uniform(words[0]), (0.75 + 0.5 * uniform(words[1])) * side)
        gaussian_filter(light, weights, weights, 1, True)
        waves[:] = 0.0  # outside of the image
        for y in range(height):
            for x in range(width):
                waves[y + 1, x + 1] = light[y, x]
        for y in range(height):
            for x in range(width):
                slope_y = waves[y + 2, x + 1] - waves[y, x + 1]
                slope_x = waves[y + 1, x + 2] - waves[y + 1, x]
                bend_y, bend_x = refraction(slope_y, slope_x)
                source_y = y + round(bend_y * lens_share * side * 1000.0) / 1000.0
                source_x = x + round(bend_x * lens_share * side * 1000.0) / 1000.0
                top, left = math.floor(source_y), math.floor(source_x)
                shine = -slope_x * lighting + slope_y * lighting
                for c in range(3):
                    value = bilinear_or_black(images[i], top, left, source_y - top, source_x - left, c)
                    out[i, y, x, c] = unit_to_level(value / 255.0 + shine)

"""Scalar pixel functions, equal to Pillow's C on uint8 to the bit.

They are compiled here for the CPU, and by the CUDA kernels that call them for CUDA.

They keep Pillow's arithmetic: `Image.blend` is float32 and truncates; bilinear sampling is float64 and truncates; luma
is 16-bit fixed point and rounds; a filter is float32, adds 0.5 and truncates. Pillow's x86-64 wheels contain no fused
multiply-add, so CUDA kernels must be compiled with fma=False.
No function here allocates memory; tables and histograms are the caller's arrays.

Sources: Pillow's src/libImaging/{Blend,Geometry,Filter,Convert}.c; ImageOps.py, ImageEnhance.py, Image.rotate.
"""

import functools
import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random.draws import ANGLE_UNITS_PER_DEGREE

MAX_ANGLE_UNITS = 30 * ANGLE_UNITS_PER_DEGREE

_FIRST_255TH = np.float32(round(2.0**23 / 255) / 2.0**23)  # 16 bits
_SECOND_255TH = np.float32(1 / 255 - float(_FIRST_255TH))
_SMOOTH_RIM = np.float32(1) / np.float32(13)
_SMOOTH_CENTRE = np.float32(5) / np.float32(13)


@functools.cache
def rotation_table() -> np.ndarray:
    """Return the cosine and sine of Image.rotate's matrix for every angle: float64 [2 MAX_ANGLE_UNITS + 1, 2].

    Row `angle + MAX_ANGLE_UNITS` is that of `angle` / 64 degrees. Python computes the table because the last bit of
    libm differs between the engines. Pillow takes an angle modulo 360 and rounds to 15 places, so the rows of a and -a
    can differ in the last place: the table is not exactly symmetric.
    """
    table = np.empty((2 * MAX_ANGLE_UNITS + 1, 2), np.float64)
    for row in range(len(table)):
        radians = -math.radians((row - MAX_ANGLE_UNITS) / ANGLE_UNITS_PER_DEGREE % 360.0)
        table[row] = round(math.cos(radians), 15), round(math.sin(radians), 15)
    return table


@jit
def unit(value):
    """Return `value / 255` of a uint8: float32 in [0, 1], correctly rounded.

    It is the sum of two products, because a division takes several times as long. The first part of 1 / 255 has 16
    bits, so its product is exact; the sum is the quotient for each of the 256 values.
    """
    value = np.float32(value)
    return value * _FIRST_255TH + value * _SECOND_255TH


@jit
def blend(degenerate, value, factor):
    """Blend two uint8 as Image.blend does, by a float32 factor that may extrapolate: int32 in 0..255."""
    change = np.int32(np.int32(value) - np.int32(degenerate))  # numba widens to 64 bits, which halves the lanes
    mixed = np.float32(degenerate) + factor * np.float32(change)
    mixed = np.float32(0) if mixed < np.float32(0) else mixed
    mixed = np.float32(255) if mixed > np.float32(255) else mixed
    return np.int32(mixed)


@jit
def luma(red, green, blue):
    """Return the ITU-R 601-2 luma of uint8 RGB, as `convert("L")` computes it: int32 in 0..255."""
    weighted = np.int32(red) * np.int32(19595) + np.int32(green) * np.int32(38470) + np.int32(blue) * np.int32(7471)
    return (weighted + np.int32(0x8000)) >> np.int32(16)


@jit
def mean_grey(luma_sum, num_pixels):
    """Return the grey that ImageEnhance.Contrast blends with: the mean luma, int32, rounded half up."""
    return np.int32(luma_sum / num_pixels + 0.5)


@jit
def interpolate(first, second, fraction):
    """Interpolate linearly between two float64."""
    return first + (second - first) * fraction


@jit
def linear(first, second, fraction):
    """Interpolate linearly between two uint8, in float64; the caller truncates."""
    return np.float64(first) + np.float64(np.int32(second) - np.int32(first)) * fraction


@jit
def bilinear(top_left, top_right, bottom_left, bottom_right, dx, dy):
    """Interpolate between four uint8 by dx and dy, float64 in [0, 1]: int32 in 0..255.

    Beyond the image's border, the caller passes the same row or column twice.
    """
    top = linear(top_left, top_right, dx)
    bottom = linear(bottom_left, bottom_right, dx)
    return np.int32(top + (bottom - top) * dy)


@jit
def rotation_offset(cosine, sine, height, width):
    """Return the third column of Image.rotate's matrix, the translation, in Pillow's order of operations: float64."""
    half_width, half_height = width / 2, height / 2
    offset_x = cosine * -half_width + sine * -half_height + half_width
    offset_y = -sine * -half_width + cosine * -half_height + half_height
    return offset_x, offset_y


@jit
def smooth(
    below_left, below_middle, below_right, left, centre, right, above_left, above_middle, above_right
):  # fmt: skip
    """Apply ImageFilter.SMOOTH at one inner pixel: nine uint8, the lowest row first, to an int32 in 0..255."""
    rim = _SMOOTH_RIM
    total = np.float32(0.5)
    total += np.float32(below_left) * rim + np.float32(below_middle) * rim + np.float32(below_right) * rim
    total += np.float32(left) * rim + np.float32(centre) * _SMOOTH_CENTRE + np.float32(right) * rim
    total += np.float32(above_left) * rim + np.float32(above_middle) * rim + np.float32(above_right) * rim
    return np.int32(np.float32(255) if total > np.float32(255) else total)


@jit
def posterize_entry(value, bits):
    """Keep the `bits` highest of 8 bits, as ImageOps.posterize does."""
    return value & ~((1 << (8 - bits)) - 1)


@jit
def solarize_entry(value, threshold):
    """Invert a value that is not below `threshold`, as ImageOps.solarize does."""
    return value if value < threshold else 255 - value


@jit
def autocontrast_line(low, high):
    """Return ImageOps.autocontrast's scale and offset, float64, which map a channel's `low` to 0 and `high` to 255."""
    if high > low:
        scale = 255.0 / (high - low)
        return scale, -low * scale
    return 1.0, 0.0


@jit
def stretch(value, scale, offset):
    """Return the entry of ImageOps.autocontrast's table for `value`: int32 in 0..255."""
    stretched = np.int32(np.float64(value) * scale + offset)
    return min(max(stretched, np.int32(0)), np.int32(255))


@jit
def autocontrast_entry(value, low, high):
    """Stretch a value as ImageOps.autocontrast does: a channel's `low` becomes 0 and its `high` 255. int32."""
    scale, offset = autocontrast_line(low, high)
    return stretch(value, scale, offset)


@jit
def equalize_step(total, last):
    """Return ImageOps.equalize's step for a channel; 0 leaves the channel as it is.

    `total` is the number of its pixels, `last` the number of those with its highest value.
    """
    return (total - last) // 255


@jit
def equalize_entry(value, cumulative, step):
    """Return ImageOps.equalize's entry for a value, where `cumulative` pixels of the channel have a lower value."""
    return min((step // 2 + cumulative) // step, 255) if step > 0 else value


@jit
def equalize_quotient(count, per_step):
    """Return `min(count // step, 255)`, int32, for loops that must vectorise; `per_step` is 1 / step, float64.

    It is exact for counts below 2^31: (count + 1/2) / step is at least 1 / (2 step) > 2^-25 away from any integer up to
    256, and rounding moves it by less than 2^-43.
    """
    return np.int32(min((np.float64(count) + 0.5) * per_step, 255.0))


@jit
def fill_equalize_table(histogram, table):
    """Fill `table`, uint8 [256], with ImageOps.equalize's entries for a channel's `histogram`, int32 [256]."""
    total, last = 0, 0
    for value in range(256):
        total += histogram[value]
        last = histogram[value] if histogram[value] > 0 else last
    step = equalize_step(total, last)
    cumulative = 0
    for value in range(256):
        table[value] = equalize_entry(value, cumulative, step)
        cumulative += histogram[value]

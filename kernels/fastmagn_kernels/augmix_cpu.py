"""The CPU engine: base transform, AugMix and noise of a batch, parallel over its images.

An image is a flat uint8 row [H W 3], channels last. Every operation reads `source` and writes `target`, two different
rows; a thread owns its rows and tables (`make_scratch`), so nothing is allocated for an image. Translations are copies,
shears interpolate in one dimension, only rotations in two; all are exact against Pillow (see `pixel`).

Legend: V views, B batch, J AugMix views, N noise views, W chains, D operations of a chain, T threads.
"""

import math

import numba
import numpy as np
from numba import prange

from fastmagn_kernels import draws
from fastmagn_kernels.compiling import jit
from fastmagn_kernels.draws import ANGLE_UNITS_PER_DEGREE
from fastmagn_kernels.pixel import (
    MAX_ANGLE_UNITS,
    bilinear,
    blend,
    clip_index,
    fill_autocontrast_table,
    fill_equalize_table,
    linear,
    luma,
    mean_grey,
    posterize_entry,
    rotation_offset,
    smooth,
    solarize_entry,
)
from fastmagn_kernels.rng import STREAM_NOISE, standard_normal

_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)
# jitter_order -> its three parts; the order of fastmagn.augment.params.JITTER_ORDERS.
_JITTER_ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], np.int64)


def make_scratch(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Each thread's own memory: images uint8 [T, 3, H W 3], tables uint8 and histograms int32 [T, 3, 256], line float64
    [T, 3 W]."""
    threads = numba.config.NUMBA_NUM_THREADS
    return (
        np.empty((threads, 3, height * width * 3), np.uint8),
        np.empty((threads, 3, 256), np.uint8),
        np.empty((threads, 3, 256), np.int32),
        np.empty((threads, 3 * width), np.float64),
    )


@jit
def shift(source, target, height, width, dx, dy, mirror):
    """target(x, y) = source(x + dx, y + dy), black outside; `mirror` flips the result left to right."""
    row = 3 * width
    first = min(max(0, -dx), width)  # columns first..last - 1 lie inside the source
    last = max(min(width, width - dx), first)
    for y in range(height):
        out = target[y * row : (y + 1) * row]
        if y + dy < 0 or y + dy >= height or last == first:
            out[:] = 0
            continue
        start = (y + dy) * row
        inside = source[start + 3 * (first + dx) : start + 3 * (last + dx)]
        if mirror:
            out[:] = 0
            for x in range(last - first):
                k = 3 * (width - 1 - first - x)
                out[k], out[k + 1], out[k + 2] = inside[3 * x], inside[3 * x + 1], inside[3 * x + 2]
        else:
            out[: 3 * first] = 0
            out[3 * first : 3 * last] = inside
            out[3 * last :] = 0


@jit
def shear_x(source, target, height, width, shear, line):
    """Image.transform by (1, shear, 0, 0, 1, 0), bilinear. `line`, float64 [3 W], is scratch.

    With base = floor(t), t = shear (y + 1/2), the fraction of each column lies in [0, 1]; where rounding has carried it
    to 1, the value is the next pixel's either way. So a row is one shift, and the loop over it vectorises.
    """
    row = 3 * width
    for y in range(height):
        t = shear * (y + 0.5)
        base = math.floor(t)
        first, last = 0, width  # columns whose centre falls inside the source
        while first < width and (first + 0.5) + t < 0.0:
            first += 1
        while last > first and (last - 0.5) + t >= width:
            last -= 1
        for x in range(first, last):
            fraction = ((x + 0.5) + t - 0.5) - (x + base)
            line[3 * x] = fraction
            line[3 * x + 1] = fraction
            line[3 * x + 2] = fraction
        values = source[y * row : (y + 1) * row]
        out = target[y * row : (y + 1) * row]
        out[: 3 * first] = 0
        out[3 * last :] = 0
        # Columns with both neighbours inside; at most one on either side copies the border.
        inner_first = min(max(first, -base), last)
        inner_last = max(min(last, width - 1 - base), inner_first)
        for x in range(first, inner_first):
            for c in range(3):
                out[3 * x + c] = values[c]
        for x in range(inner_last, last):
            for c in range(3):
                out[3 * x + c] = values[row - 3 + c]
        size = 3 * (inner_last - inner_first)
        if size > 0:
            left = values[3 * (inner_first + base) :]
            right = values[3 * (inner_first + base + 1) :]
            fractions = line[3 * inner_first :]
            inner = out[3 * inner_first :]
            for k in range(size):
                inner[k] = np.uint8(np.int32(linear(left[k], right[k], fractions[k])))


@jit
def shear_y(source, target, height, width, shear):
    """Image.transform by (1, 0, 0, shear, 1, 0), bilinear."""
    row = 3 * width
    for y in range(height):
        for x in range(width):
            t = shear * (x + 0.5)
            source_y = t + (y + 0.5)
            k = y * row + 3 * x
            if source_y < 0.0 or source_y >= height:
                target[k] = target[k + 1] = target[k + 2] = 0
                continue
            source_y -= 0.5
            upper = math.floor(source_y)
            dy = source_y - upper
            i = clip_index(upper, height) * row + 3 * x
            j = clip_index(upper + 1, height) * row + 3 * x
            for c in range(3):
                target[k + c] = np.uint8(np.int32(linear(source[i + c], source[j + c], dy)))


@jit
def rotate(source, target, height, width, angle, rotation_table):
    """Image.rotate by `angle` / 64 degrees counter-clockwise, bilinear."""
    if angle == 0:
        target[:] = source
        return
    cosine, sine = rotation_table[angle + MAX_ANGLE_UNITS]
    offset_x, offset_y = rotation_offset(cosine, sine, height, width)
    row = 3 * width
    for y in range(height):
        for x in range(width):
            source_x = cosine * (x + 0.5) + sine * (y + 0.5) + offset_x
            source_y = -sine * (x + 0.5) + cosine * (y + 0.5) + offset_y
            k = y * row + 3 * x
            if source_x < 0.0 or source_x >= width or source_y < 0.0 or source_y >= height:
                target[k] = target[k + 1] = target[k + 2] = 0
                continue
            source_x -= 0.5
            source_y -= 0.5
            x0, y0 = math.floor(source_x), math.floor(source_y)
            dx, dy = source_x - x0, source_y - y0
            left, right = 3 * clip_index(x0, width), 3 * clip_index(x0 + 1, width)
            top, bottom = clip_index(y0, height) * row, clip_index(y0 + 1, height) * row
            for c in range(3):
                value = bilinear(
                    source[top + left + c],
                    source[top + right + c],
                    source[bottom + left + c],
                    source[bottom + right + c],
                    dx,
                    dy,
                )
                target[k + c] = np.uint8(value)


@jit
def fill_histograms(source, histograms):
    """The three channels' histograms, int32 [3, 256]."""
    histograms[:] = 0
    for p in range(source.size // 3):
        for c in range(3):
            histograms[c, source[3 * p + c]] += 1


@jit
def apply_tables(source, target, tables):
    """A table for each channel, uint8 [3, 256]."""
    for p in range(source.size // 3):
        for c in range(3):
            target[3 * p + c] = tables[c, source[3 * p + c]]


@jit
def change_values(op, magnitude, source, target, tables, histograms):
    """The operations that map values by a table: autocontrast, equalize, posterize, solarize."""
    if op == draws.AUTOCONTRAST or op == draws.EQUALIZE:
        fill_histograms(source, histograms)
    for c in range(3):
        if op == draws.AUTOCONTRAST:
            fill_autocontrast_table(histograms[c], tables[c])
        elif op == draws.EQUALIZE:
            fill_equalize_table(histograms[c], tables[c])
        else:
            amount = np.int64(magnitude)
            for value in range(256):
                entry = posterize_entry(value, amount) if op == draws.POSTERIZE else solarize_entry(value, amount)
                tables[c, value] = entry
    apply_tables(source, target, tables)


@jit
def enhance_color(source, target, factor):
    """ImageEnhance.Color: blend with the pixel's luma."""
    for p in range(source.size // 3):
        red, green, blue = source[3 * p], source[3 * p + 1], source[3 * p + 2]
        grey = luma(red, green, blue)
        target[3 * p] = np.uint8(blend(grey, red, factor))
        target[3 * p + 1] = np.uint8(blend(grey, green, factor))
        target[3 * p + 2] = np.uint8(blend(grey, blue, factor))


@jit
def enhance_contrast(source, target, factor):
    """ImageEnhance.Contrast: blend with the image's mean luma."""
    total = np.int64(0)
    num_pixels = source.size // 3
    for p in range(num_pixels):
        total += luma(source[3 * p], source[3 * p + 1], source[3 * p + 2])
    grey = mean_grey(total, num_pixels)
    for k in range(source.size):
        target[k] = np.uint8(blend(grey, source[k], factor))


@jit
def enhance_brightness(source, target, factor):
    """ImageEnhance.Brightness: blend with black."""
    for k in range(source.size):
        target[k] = np.uint8(blend(0, source[k], factor))


@jit
def enhance_sharpness(source, target, height, width, factor):
    """ImageEnhance.Sharpness: blend with the smoothed image, whose border is the image's own."""
    row = 3 * width
    target[:] = source
    for y in range(1, height - 1):
        lower = source[(y + 1) * row : (y + 2) * row]
        here = source[y * row : (y + 1) * row]
        upper = source[(y - 1) * row : y * row]
        out = target[y * row : (y + 1) * row]
        for k in range(3, row - 3):
            smoothed = smooth(
                lower[k - 3], lower[k], lower[k + 3],
                here[k - 3], here[k], here[k + 3],
                upper[k - 3], upper[k], upper[k + 3],
            )  # fmt: skip
            out[k] = np.uint8(blend(smoothed, here[k], factor))


@jit
def apply_operation(op, magnitude, source, target, height, width, rotation_table, tables, histograms, line):
    """One AugMix operation, by its id; `tables`, `histograms` and `line` are a thread's scratch."""
    if op == draws.ROTATE:
        rotate(source, target, height, width, ANGLE_UNITS_PER_DEGREE * np.int64(magnitude), rotation_table)
    elif op == draws.SHEAR_X:
        shear_x(source, target, height, width, magnitude, line)
    elif op == draws.SHEAR_Y:
        shear_y(source, target, height, width, magnitude)
    elif op == draws.TRANSLATE_X:
        shift(source, target, height, width, np.int64(magnitude), 0, False)
    elif op == draws.TRANSLATE_Y:
        shift(source, target, height, width, 0, np.int64(magnitude), False)
    elif op == draws.COLOR:
        enhance_color(source, target, np.float32(magnitude))
    elif op == draws.CONTRAST:
        enhance_contrast(source, target, np.float32(magnitude))
    elif op == draws.BRIGHTNESS:
        enhance_brightness(source, target, np.float32(magnitude))
    elif op == draws.SHARPNESS:
        enhance_sharpness(source, target, height, width, np.float32(magnitude))
    else:
        change_values(op, magnitude, source, target, tables, histograms)


@jit
def base_transform(
    source, rows, height, width, dx, dy, flip, order, brightness, contrast, saturation, angle, rotation_table
):  # fmt: skip
    """Crop, flip, jitter, rotate; `rows` uint8 [3, H W 3] is scratch. Returns which of its rows is the clean view."""
    shift(source, rows[0], height, width, dx, dy, flip)
    current = 0
    for step in range(3):
        part = _JITTER_ORDERS[order, step]
        factor = brightness if part == _BRIGHTNESS else (contrast if part == _CONTRAST else saturation)
        if factor == np.float32(1):
            continue
        following = 1 - current
        if part == _BRIGHTNESS:
            enhance_brightness(rows[current], rows[following], factor)
        elif part == _CONTRAST:
            enhance_contrast(rows[current], rows[following], factor)
        else:
            enhance_color(rows[current], rows[following], factor)
        current = following
    if angle != 0:
        rotate(rows[current], rows[1 - current], height, width, angle, rotation_table)
        current = 1 - current
    return current


@jit
def augmix_view(
    rows, clean, out_clean, out, height, width, ops, magnitudes, chain_weights, mix_weight,
    rotation_table, tables, histograms, line,
):  # fmt: skip
    """One AugMix view into `out`, float32 [H W 3]; ops and magnitudes [W, D], rows[clean] the clean view."""
    out[:] = 0
    for w in range(ops.shape[0]):
        current = clean
        for d in range(ops.shape[1]):
            if ops[w, d] != draws.NO_OPERATION:
                following = (clean + 1) % 3 if current != (clean + 1) % 3 else (clean + 2) % 3
                apply_operation(
                    ops[w, d], magnitudes[w, d], rows[current], rows[following], height, width,
                    rotation_table, tables, histograms, line,
                )  # fmt: skip
                current = following
        weight = chain_weights[w] / np.float32(255)
        chain = rows[current]
        for k in range(out.size):
            out[k] += weight * np.float32(chain[k])
    rest = np.float32(1) - mix_weight
    for k in range(out.size):
        out[k] = rest * out_clean[k] + mix_weight * out[k]


@jit(parallel=True)
def make_views_batch(
    images, height, width, padding_px, crop_x_px, crop_y_px, flip, jitter_order, brightness, contrast, saturation,
    angle, ops, magnitudes, chain_weights, mix_weight, sigma, indices, epoch, key_0, key_1, rotation_table,
    rows, tables, histograms, line, out,
):  # fmt: skip
    """All views of a batch: images uint8 [B, H W 3] -> out float32 [V B, H W 3]: clean | AugMix x J | noise x N.

    The parameters are `fastmagn.augment.params.ViewParams`' arrays; `rows` to `line` are `make_scratch`'s.
    """
    batch = images.shape[0]
    num_augmix, num_noise = ops.shape[0], sigma.shape[0]
    for i in prange(batch):
        t = numba.get_thread_id()
        clean = base_transform(
            images[i], rows[t], height, width, crop_x_px[i] - padding_px, crop_y_px[i] - padding_px, flip[i],
            jitter_order[i], brightness[i], contrast[i], saturation[i], angle[i], rotation_table,
        )  # fmt: skip
        pixels, clean_out = rows[t, clean], out[i]
        for k in range(pixels.size):
            clean_out[k] = np.float32(pixels[k]) / np.float32(255)
        for j in range(num_augmix):
            augmix_view(
                rows[t], clean, clean_out, out[(1 + j) * batch + i], height, width, ops[j, i], magnitudes[j, i],
                chain_weights[j, i], mix_weight[j, i], rotation_table, tables[t], histograms[t], line[t],
            )  # fmt: skip
        for n in range(num_noise):
            noisy = out[(1 + num_augmix + n) * batch + i]
            standard_normal(noisy, STREAM_NOISE, n, indices[i], epoch, key_0, key_1)
            for k in range(noisy.size):
                noisy[k] = clean_out[k] + sigma[n, i] * noisy[k]

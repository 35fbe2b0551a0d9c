"""Snow, frost and fog of the corruption sets: uint8 in, uint8 out.

Slots of the random stream: snow, the layer's normals from 0 and the wind's angle after them; frost, slot 0 (picture,
row, column); fog, word q for point q of the plasma map, row by row.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import motion_filter, unit_to_level
from fastmagn_kernels.corruptions.noise import fill_words, first_word
from fastmagn_kernels.random.rng import STREAM_CORRUPTION, below, philox4x32, standard_normal, stream_view_word, uniform

_MEAN_WIND_DEG, _WIND_SPREAD_DEG = -90.0, 45.0
# Luma weights of ITU-R BT.601, as OpenCV's RGB to grey has them.
_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)


@jit
def flake_layer(out, z, flakes, zoom, whole_levels):
    """Snow before the wind: normals `z` (float32 [H, W]) magnified, those below the threshold black.

    `out` has levels, float64 [Zh, Zw], truncated where `whole_levels`; `flakes` and `zoom` as in `snow_batch`, sample
    positions as in the blur's `add_zoomed`.
    """
    height, width = z.shape
    mean, std, threshold = flakes
    rows, row_weights, columns, column_weights = zoom
    for y in range(rows.size):
        upper, lower, v = rows[y], min(rows[y] + 1, height - 1), row_weights[y]
        for x in range(columns.size):
            left, right, w = columns[x], min(columns[x] + 1, width - 1), column_weights[x]
            top = (1.0 - w) * z[upper, left] + w * z[upper, right]
            bottom = (1.0 - w) * z[lower, left] + w * z[lower, right]
            flake = mean + std * ((1.0 - v) * top + v * bottom)
            level = min(max(flake, 0.0), 1.0) * 255.0 if flake >= threshold else 0.0
            out[y, x] = math.floor(level) if whole_levels else level


@jit
def snow_pixel(red, green, blue, keep, flakes):
    """One snowy pixel: levels in, levels out; whitened by 1 - `keep`, `flakes` (in [0, 2]) added."""
    r, g, b = np.float32(red / 255.0), np.float32(green / 255.0), np.float32(blue / 255.0)
    white = (_RED * r + _GREEN * g + _BLUE * b) * np.float32(1.5) + np.float32(0.5)
    fade = np.float32(1.0 - keep)
    keep = np.float32(keep)
    r = keep * r + fade * max(r, white)
    g = keep * g + fade * max(g, white)
    b = keep * b + fade * max(b, white)
    return unit_to_level(r + flakes), unit_to_level(g + flakes), unit_to_level(b + flakes)


@jit
def snow_image(out, image, flakes, keep, zoom, whole_levels, weights, view, index, key_0, key_1):
    """One image of `snow_batch`."""
    height, width, _ = image.shape
    z = np.empty(height * width, np.float32)
    standard_normal(z, STREAM_CORRUPTION, view, index, 0, key_0, key_1)
    u = uniform(first_word(view, index, (z.size + 3) // 4, key_0, key_1))
    still = np.empty((zoom[0].size, zoom[2].size), np.float64)
    flake_layer(still, z.reshape(height, width), flakes, zoom, whole_levels)
    blown = np.empty((height, width), np.uint8)
    half = weights.dtype.type(0.5)
    motion_filter(blown, still, weights, half, _MEAN_WIND_DEG + (2.0 * u - 1.0) * _WIND_SPREAD_DEG, 1)
    for y in range(height):
        for x in range(width):
            both = blown[y, x] / 255.0 + blown[height - 1 - y, width - 1 - x] / 255.0
            red, green, blue = image[y, x, 0], image[y, x, 1], image[y, x, 2]
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = snow_pixel(red, green, blue, keep, both)


@jit(nogil=True)
def snow_batch(out, images, flakes, keep, zoom, whole_levels, weights, view, indices, key_0, key_1):
    """Snow on `images`, uint8 [N, H, W, 3]; `out` alike.

    `flakes` is (mean, std, threshold) of the layer, `zoom` (rows, row weights, columns, column weights) of its
    magnification, from which the wind takes the top left; `whole_levels` whether flakes are truncated before the wind
    blows; `weights` [T] the motion blur's taps as in `motion_filter`.
    """
    for i in range(images.shape[0]):
        snow_image(out[i], images[i], flakes, keep, zoom, whole_levels, weights, view, indices[i], key_0, key_1)


@jit(nogil=True)
def frost_batch(out, images, pictures, starts, heights, widths, image_share, frost_share, view, indices, key_0, key_1):
    """Weighted sum of `images` (uint8 [N, H, W, 3]) and crops of random pictures; `out` alike.

    `pictures` is uint8 [P, 3], the pictures' pixels one after another, row by row; picture k has `heights[k]` rows of
    `widths[k]` pixels from `starts[k]` on (int64 [K] each), larger than H x W.
    """
    stream = stream_view_word(STREAM_CORRUPTION, view)
    for i in range(images.shape[0]):
        _, height, width, _ = images.shape
        w0, w1, w2, _ = philox4x32(0, stream, indices[i], 0, key_0, key_1)
        k = below(w0, heights.size)
        top, left = below(w1, heights[k] - height), below(w2, widths[k] - width)
        for y in range(height):
            first = starts[k] + (top + y) * widths[k] + left
            for x in range(width):
                for c in range(3):
                    level = image_share * images[i, y, x, c] + frost_share * pictures[first + x, c]
                    out[i, y, x, c] = np.uint8(min(max(level, 0.0), 255.0))


@jit
def fill_plasma(plasma, words, decay):
    """Diamond-square heights on a torus, scaled to [0, 1]: `plasma` float64 [M, M], M a power of two.

    Each point is the mean of four neighbours plus a uniform draw (`words`, uint32 [M * M], its own by position), whose
    range shrinks by `decay` squared at each halving of the grid.
    """
    side = plasma.shape[0]
    last = side - 1
    plasma[0, 0] = 0.0
    step = side
    reach = 100.0 * 100.0
    while step >= 2:
        half = step // 2
        for y in range(half, side, step):
            for x in range(half, side, step):
                up, down, left, right = y - half, (y + half) & last, x - half, (x + half) & last
                total = plasma[up, left] + plasma[down, left] + plasma[up, right] + plasma[down, right]
                plasma[y, x] = total / 4.0 + reach * (2.0 * uniform(words[y * side + x]) - 1.0)
        for y in range(0, side, half):
            for x in range(half if y % step == 0 else 0, side, step):
                up, down, left, right = (y - half) & last, (y + half) & last, (x - half) & last, (x + half) & last
                total = plasma[up, x] + plasma[down, x] + plasma[y, left] + plasma[y, right]
                plasma[y, x] = total / 4.0 + reach * (2.0 * uniform(words[y * side + x]) - 1.0)
        step = half
        reach /= decay * decay
    lowest = plasma.min()
    span = plasma.max() - lowest
    for y in range(side):
        for x in range(side):
            plasma[y, x] = (plasma[y, x] - lowest) / span


@jit
def fog_image(out, image, amount, decay, map_side, view, index, key_0, key_1):
    """One image of `fog_batch`."""
    words = np.empty(map_side * map_side, np.uint32)
    fill_words(words, view, index, 0, key_0, key_1)
    plasma = np.empty((map_side, map_side), np.float64)
    fill_plasma(plasma, words, decay)
    brightest = image.max() / 255.0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for c in range(3):
                foggy = image[y, x, c] / 255.0 + amount * plasma[y, x]
                out[y, x, c] = unit_to_level(foggy * brightest / (brightest + amount))


@jit(nogil=True)
def fog_batch(out, images, amount, decay, map_side, view, indices, key_0, key_1):
    """Add `amount` times a plasma to `images` (uint8 [N, H, W, 3]) and bring each back to its own maximum.

    `out` is like `images`; the plasma's side `map_side` is a power of two, at least H and W.
    """
    for i in range(images.shape[0]):
        fog_image(out[i], images[i], amount, decay, map_side, view, indices[i], key_0, key_1)

"""Snow, frost and fog of the corruption sets: uint8 in, uint8 out.

Slots of the random stream. Snow: the normals of the layer from slot 0 on, then the wind's angle. Frost: the picture,
the row and the column in slot 0. Fog: word q is point q of the plasma map, row by row.
"""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import Zoom, motion_filter, unit_to_level
from fastmagn_kernels.corruptions.stream import fill_normals, fill_words, first_word, slot_words
from fastmagn_kernels.random.rng import below, uniform

_MEAN_WIND_DEG, _WIND_SPREAD_DEG = -90.0, 45.0
# The luma weights of ITU-R BT.601, which OpenCV's RGB to grey uses.
_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)


class Snowfall(NamedTuple):
    """A layer of flakes, which are normal draws, magnified, above a threshold, and blown by a motion blur.

    Args:
        mean: Mean of the draws.
        std: Standard deviation of the draws.
        threshold: Lower values are black.
        keep: Share of the image that is not whitened.
        zoom: The magnification.
        weights: The taps of the motion blur, [T], as in `motion_filter`.
    """

    mean: float
    std: float
    threshold: float
    keep: float
    zoom: Zoom
    weights: np.ndarray


class FrostPictures(NamedTuple):
    """The pictures of frost. Picture k has heights[k] rows of widths[k] pixels; all are larger than H x W.

    Args:
        pixels: The pictures one after another, row by row, uint8 [P, 3].
        starts: The first pixel of each picture, int64 [K].
        heights: int64 [K].
        widths: int64 [K].
    """

    pixels: np.ndarray
    starts: np.ndarray
    heights: np.ndarray
    widths: np.ndarray


@jit
def flake_layer(out, z, snowfall):
    """Fill `out`, uint8 [H, W], with the snow before the wind, from normals `z`, float32 [H, W]."""
    height, width = z.shape
    mean, std, threshold = snowfall.mean, snowfall.std, snowfall.threshold
    rows, row_weights, columns, column_weights = snowfall.zoom
    for y in range(rows.size):
        upper, lower, v = rows[y], min(rows[y] + 1, height - 1), row_weights[y]
        for x in range(columns.size):
            left, right, w = columns[x], min(columns[x] + 1, width - 1), column_weights[x]
            top = (1.0 - w) * z[upper, left] + w * z[upper, right]
            bottom = (1.0 - w) * z[lower, left] + w * z[lower, right]
            flake = mean + std * ((1.0 - v) * top + v * bottom)
            out[y, x] = unit_to_level(flake if flake >= threshold else 0.0)


@jit
def snow_pixel(red, green, blue, keep, flakes):
    """Whiten a pixel by 1 - `keep`, and add `flakes`, in [0, 2]: levels in, levels out."""
    r, g, b = np.float32(red / 255.0), np.float32(green / 255.0), np.float32(blue / 255.0)
    white = (_RED * r + _GREEN * g + _BLUE * b) * np.float32(1.5) + np.float32(0.5)
    fade = np.float32(1.0 - keep)
    keep = np.float32(keep)
    r = keep * r + fade * max(r, white)
    g = keep * g + fade * max(g, white)
    b = keep * b + fade * max(b, white)
    return unit_to_level(r + flakes), unit_to_level(g + flakes), unit_to_level(b + flakes)


@jit
def snow_image(out, image, snowfall, stream, index):
    """Let snow fall on one image of `snow_batch`."""
    height, width, _ = image.shape
    keep, weights = snowfall.keep, snowfall.weights
    z = np.empty(height * width, np.float32)
    fill_normals(z, stream, index)
    u = uniform(first_word(stream, index, (z.size + 3) // 4))
    still = np.empty((height, width), np.uint8)
    flake_layer(still, z.reshape(height, width), snowfall)
    blown = np.empty((height, width), np.uint8)
    motion_filter(blown, still, weights, _MEAN_WIND_DEG + (2.0 * u - 1.0) * _WIND_SPREAD_DEG, 1)
    for y in range(height):
        for x in range(width):
            both = blown[y, x] / 255.0 + blown[height - 1 - y, width - 1 - x] / 255.0
            red, green, blue = image[y, x, 0], image[y, x, 1], image[y, x, 2]
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = snow_pixel(red, green, blue, keep, both)


@jit(nogil=True)
def snow_batch(out, images, snowfall, stream, indices):
    """Let a `Snowfall` fall on `images`, uint8 [N, H, W, 3]; `out` is like `images`."""
    for i in range(images.shape[0]):
        snow_image(out[i], images[i], snowfall, stream, indices[i])


@jit(nogil=True)
def frost_batch(out, images, pictures, image_share, frost_share, stream, indices):
    """Add `images`, uint8 [N, H, W, 3], and crops of random `FrostPictures` by their shares; `out` is like `images`."""
    pixels, starts, heights, widths = pictures
    for i in range(images.shape[0]):
        _, height, width, _ = images.shape
        w0, w1, w2, _ = slot_words(stream, indices[i], 0)
        k = below(w0, heights.size)
        top, left = below(w1, heights[k] - height), below(w2, widths[k] - width)
        for y in range(height):
            first = starts[k] + (top + y) * widths[k] + left
            for x in range(width):
                for c in range(3):
                    level = image_share * images[i, y, x, c] + frost_share * pixels[first + x, c]
                    out[i, y, x, c] = np.uint8(min(max(level, 0.0), 255.0))


@jit
def fill_plasma(plasma, words, decay):
    """Fill `plasma`, float64 [M, M], with diamond-square heights on a torus, scaled to [0, 1]; M is a power of two.

    Each point is the mean of four neighbours plus a uniform draw, from the word of `words`, uint32 [M * M], at the
    point's position. Each halving of the grid divides the range of the draws by `decay` squared.
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
def fog_image(out, image, amount, decay, map_side, stream, index):
    """Add fog to one image of `fog_batch`."""
    words = np.empty(map_side * map_side, np.uint32)
    fill_words(words, stream, index)
    plasma = np.empty((map_side, map_side), np.float64)
    fill_plasma(plasma, words, decay)
    brightest = image.max() / 255.0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for c in range(3):
                foggy = image[y, x, c] / 255.0 + amount * plasma[y, x]
                out[y, x, c] = unit_to_level(foggy * brightest / (brightest + amount))


@jit(nogil=True)
def fog_batch(out, images, amount, decay, map_side, stream, indices):
    """Add `amount` times a plasma to `images`, uint8 [N, H, W, 3], and scale each back to its own maximum.

    `out` is like `images`. `map_side`, the side of the plasma, is a power of two, at least H and W.
    """
    for i in range(images.shape[0]):
        fog_image(out[i], images[i], amount, decay, map_side, stream, indices[i])

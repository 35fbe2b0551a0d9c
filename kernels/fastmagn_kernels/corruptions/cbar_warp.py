"""C-bar's warps: pinch and twirl, ripple, circular motion blur, chromatic aberration. uint8 in, uint8 out.

A draw is a word of the image's stream, in the order in which the functions take them (word j is word j mod 4 of slot
j div 4). `side` is an image's shorter side, to which the source's lengths are relative.
"""

import math
from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import mirror_index
from fastmagn_kernels.corruptions.smooth_math import level
from fastmagn_kernels.corruptions.stream import fill_words
from fastmagn_kernels.random.rng import below, uniform

_POLE = math.sqrt(3.0) - 2.0  # of the cubic B-spline's inverse filter


class Warp(NamedTuple):
    """Where the pixels of a square cell come from, for a twirl to the left and one to the right.

    Args:
        steps: Pixels down and to the right from the cell's corner, int64 [2, G, G, 2].
        weights: The share of the next pixel in either direction, float64 [2, G, G, 2].
    """

    steps: np.ndarray
    weights: np.ndarray


class CubicZoom(NamedTuple):
    """How one side of an image is resampled for each of three scales: taps and their weights.

    Args:
        taps: int64 [3, L, 4], indices into the side.
        weights: float64 [3, L, 4].
    """

    taps: np.ndarray
    weights: np.ndarray


@jit
def bilinear_or_black(image, top, left, down, right, channel):
    """Return a channel of `image`, uint8 [H, W, 3], between four pixels; those outside of the image are black.

    The terms have the source's order, because the result is truncated.
    """
    height, width, _ = image.shape
    rows, columns = 0 <= top < height, 0 <= left < width
    next_rows, next_columns = 0 <= top + 1 < height, 0 <= left + 1 < width
    a = np.float64(image[top, left, channel]) if rows and columns else 0.0
    b = np.float64(image[top, left + 1, channel]) if rows and next_columns else 0.0
    c = np.float64(image[top + 1, left, channel]) if next_rows and columns else 0.0
    d = np.float64(image[top + 1, left + 1, channel]) if next_rows and next_columns else 0.0
    upper = a * (1.0 - right) + b * right
    lower = c * (1.0 - right) + d * right
    return upper * (1.0 - down) + lower * down


@jit(nogil=True)
def pinch_and_twirl_batch(out, images, num_cells, warp, stream, indices):
    """Warp square cells from the top left on, `num_cells` along either side; `images` and `out` are uint8 [N, H, W, 3].

    Draws: for each cell, column by column, the direction of the twirl. The rest of the image stays.
    """
    steps, weights = warp
    grid_px = steps.shape[1]
    words = np.empty(num_cells[0] * num_cells[1], np.uint32)
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        for y in range(images.shape[1]):
            for x in range(images.shape[2]):
                row, column = y // grid_px, x // grid_px
                if row >= num_cells[0] or column >= num_cells[1]:
                    for c in range(3):
                        out[i, y, x, c] = images[i, y, x, c]
                    continue
                sign = below(words[column * num_cells[0] + row], 2)
                top, left = row * grid_px, column * grid_px
                step, weight = steps[sign, y - top, x - left], weights[sign, y - top, x - left]
                for c in range(3):
                    value = bilinear_or_black(images[i], top + step[0], left + step[1], weight[0], weight[1], c)
                    out[i, y, x, c] = level(np.float64(np.float32(value)))


@jit
def fill_ripple(steps, weights, wave_px, phase, height_px):
    """Fill the first source index, int64 [L], and the next one's weight, float64 [L], of a rippled side."""
    for k in range(steps.size):
        position = k + height_px * math.sin(2.0 * math.pi * k / wave_px + phase)
        steps[k] = math.floor(position)
        weights[k] = position - steps[k]


@jit(nogil=True)
def ripple_batch(out, images, height_share, stream, indices):
    """Move the rows and the columns of `images`, uint8 [N, H, W, 3], by sines; `out` is like `images`.

    `height_share` is the sines' height in sides. Draws: the wavelengths of rows and columns, in 0.1..0.3 sides, and
    their phases.
    """
    _, height, width, _ = images.shape
    side = min(height, width)
    words = np.empty(4, np.uint32)
    rows, columns = np.empty(height, np.int64), np.empty(width, np.int64)
    row_weights, column_weights = np.empty(height), np.empty(width)
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        waves = (0.1 + (0.3 - 0.1) * uniform(words[0])) * side, (0.1 + (0.3 - 0.1) * uniform(words[1])) * side
        phases = 2.0 * math.pi * uniform(words[2]), 2.0 * math.pi * uniform(words[3])
        fill_ripple(rows, row_weights, waves[0], phases[0], height_share * side)
        fill_ripple(columns, column_weights, waves[1], phases[1], height_share * side)
        for y in range(height):
            for x in range(width):
                for c in range(3):
                    value = bilinear_or_black(images[i], rows[y], columns[x], row_weights[y], column_weights[x], c)
                    out[i, y, x, c] = level(value)


@jit
def invert_spline(lines):
    """Turn samples, float64 [L, K], into cubic B-spline coefficients along the first axis, in place.

    The border mirrors without repeating its edge. Source: M. Unser, "Splines: a perfect fit for signal and image
    processing", 1999: a causal and an anticausal recursive filter.
    """
    length, num_lanes = lines.shape
    gain = (1.0 - _POLE) * (1.0 - 1.0 / _POLE)
    last = length - 1
    for k in range(num_lanes):  # the mirrored signal has period 2 * last: its sum of powers of the pole, to infinity
        total = lines[0, k] + _POLE**last * lines[last, k]
        power, mirrored = _POLE, _POLE ** (2 * last - 1)
        for j in range(1, last):
            total += (power + mirrored) * lines[j, k]
            power *= _POLE
            mirrored /= _POLE
        lines[0, k] = gain * total / (1.0 - _POLE ** (2 * last))
    for j in range(1, length):
        for k in range(num_lanes):
            lines[j, k] = gain * lines[j, k] + _POLE * lines[j - 1, k]
    for k in range(num_lanes):
        lines[last, k] = (_POLE * lines[last - 1, k] + lines[last, k]) * _POLE / (_POLE * _POLE - 1.0)
    for j in range(last - 1, -1, -1):
        for k in range(num_lanes):
            lines[j, k] = _POLE * (lines[j + 1, k] - lines[j, k])


@jit
def spline_weights(weights, t):
    """Fill the weights of four B-spline coefficients, float64 [4], at the share t of the way from second to third."""
    s = 1.0 - t
    weights[0], weights[3] = s * s * s / 6.0, t * t * t / 6.0
    weights[1] = (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0
    weights[2] = (4.0 - 6.0 * s * s + 3.0 * s * s * s) / 6.0


@jit
def collect_arc(arc, touched, y, x, height, width, turns, shares):
    """Add up the weight that each spline coefficient has in the mean of turned images at pixel (y, x).

    Args:
        arc: float64 [H * W], zero before; the weights.
        touched: int64 [16 * T]; the places that have one.
        y: The row.
        x: The column.
        height: H.
        width: W.
        turns: The cosine and the sine of each angle, float64 [T, 2].
        shares: The share of each angle, float64 [T].

    Returns:
        How many places there are.
    """
    rows, columns = np.empty(4), np.empty(4)
    middle_y, middle_x = (height - 1) / 2.0, (width - 1) / 2.0
    count = 0
    for a in range(shares.size):
        source_y = turns[a, 0] * (y - middle_y) + turns[a, 1] * (x - middle_x) + middle_y
        source_x = -turns[a, 1] * (y - middle_y) + turns[a, 0] * (x - middle_x) + middle_x
        if not (0.0 <= source_y <= height - 1 and 0.0 <= source_x <= width - 1):
            continue
        top, left = math.floor(source_y), math.floor(source_x)
        spline_weights(rows, source_y - top)
        spline_weights(columns, source_x - left)
        for j in range(4):
            row = mirror_index(top - 1 + j, height) * width
            for k in range(4):
                place = row + mirror_index(left - 1 + k, width)
                if arc[place] == 0.0:
                    touched[count] = place
                    count += 1
                arc[place] += shares[a] * rows[j] * columns[k]
    return count


@jit(nogil=True)
def circular_blur_batch(out, images, turns, shares):
    """Average `images`, uint8 [N, H, W, 3], over turns about their middle, interpolated by cubic splines.

    `turns` and `shares` are as in `collect_arc`. What a turn brings in from outside is black. The weights of a pixel
    are the same in all images and channels, so these are the innermost loop. `out` is like `images`.
    """
    num_images, height, width, _ = images.shape
    lanes = 3 * num_images
    spline = np.empty((height, width, lanes))
    for y in range(height):
        for x in range(width):
            for i in range(num_images):
                for c in range(3):
                    spline[y, x, 3 * i + c] = images[i, y, x, c]
    invert_spline(spline.reshape(height, width * lanes))
    for y in range(height):
        invert_spline(spline[y])
    flat = spline.reshape(height * width, lanes)
    arc, touched = np.zeros(height * width), np.empty(16 * shares.size + 3, np.int64)
    mean = np.empty(lanes)
    for y in range(height):
        for x in range(width):
            count = collect_arc(arc, touched, y, x, height, width, turns, shares)
            for k in range(count, count + 3):
                touched[k] = touched[0]  # they add nothing: its weight is taken first
            mean[:] = 0.0
            for k in range(0, count, 4):  # four at a time, or loads and stores of the sum would take most of the time
                a, b, c, d = touched[k], touched[k + 1], touched[k + 2], touched[k + 3]
                u, arc[a] = arc[a], 0.0
                v, arc[b] = arc[b], 0.0
                w, arc[c] = arc[c], 0.0
                z, arc[d] = arc[d], 0.0
                for j in range(lanes):
                    mean[j] += u * flat[a, j] + v * flat[b, j] + w * flat[c, j] + z * flat[d, j]
            for i in range(num_images):
                for c in range(3):
                    out[i, y, x, c] = level(mean[3 * i + c])


@jit(nogil=True)
def chromatic_batch(out, images, orders, rows, columns, stream, indices):
    """Enlarge the channels of `images`, uint8 [N, H, W, 3], by three scales; `out` is like `images`.

    `orders`, int64 [6, 3], has the scale of each channel in each permutation, of which one is drawn. `rows` and
    `columns` are `CubicZoom`s. Values are rounded.
    """
    _, height, width, _ = images.shape
    row_taps, row_weights = rows
    column_taps, column_weights = columns
    words = np.empty(1, np.uint32)
    line = np.empty(width)
    for i in range(images.shape[0]):
        fill_words(words, stream, indices[i])
        order = below(words[0], 6)
        for c in range(3):
            scale = orders[order, c]
            for y in range(height):
                line[:] = 0.0
                for k in range(4):
                    weight, row = row_weights[scale, y, k], row_taps[scale, y, k]
                    for x in range(width):
                        line[x] += weight * images[i, row, x, c]
                for x in range(width):
                    total = 0.5
                    for k in range(4):
                        total += column_weights[scale, x, k] * line[column_taps[scale, x, k]]
                    out[i, y, x, c] = level(total)

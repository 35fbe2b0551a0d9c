"""Elastic deformation of the corruption sets: a random affine warp, then a smooth random displacement.

Slots of the random stream: 0 and 1 move the three points of the warp (x, y of each). From slot 2 on, word 2 q is the
x displacement of pixel q before it is smoothed, and word 2 q + 1 its y displacement.
"""

import math
from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import gaussian_filter, mirror_index, reflect_index, to_unit, unit_to_level
from fastmagn_kernels.corruptions.stream import fill_words
from fastmagn_kernels.random.rng import uniform


class Deformation(NamedTuple):
    """The size of an elastic deformation.

    Args:
        displacement_px: Factor of the smoothed displacements, which are uniform in [-1, 1) before they are smoothed.
        row_weights: Weights that smooth them down the rows, float64 [2r + 1].
        column_weights: Weights that smooth them along the rows, float64 [2r + 1], with its own r.
        jitter_px: How far the points of the warp can move; at 0 there is no warp.
    """

    displacement_px: float
    row_weights: np.ndarray
    column_weights: np.ndarray
    jitter_px: float


@jit
def signed_uniform(word):
    """Map a uint32 to a float64, uniform in [-1, 1)."""
    return 2.0 * uniform(word) - 1.0


@jit
def inverse_affine(out, words, height, width, jitter_px):
    """Fill `out`, float64 [6], with the map from output to input pixels: x' = a x + b y + c, y' = d x + e y + f.

    The forward map moves three corners of a central square, s = min(H, W) // 3 from the centre, by six draws of
    +-jitter_px (`words`, uint32 [6]).
    """
    centre_x, centre_y, s = width // 2, height // 2, min(height, width) // 3
    x0, y0 = centre_x + s + jitter_px * signed_uniform(words[0]), centre_y + s + jitter_px * signed_uniform(words[1])
    x1, y1 = centre_x + s + jitter_px * signed_uniform(words[2]), centre_y - s + jitter_px * signed_uniform(words[3])
    x2, y2 = centre_x - s + jitter_px * signed_uniform(words[4]), centre_y - s + jitter_px * signed_uniform(words[5])
    # The edges after the move; before it, the first is (0, 2 s) and the second (2 s, 0).
    down_x, down_y, across_x, across_y = x0 - x1, y0 - y1, x1 - x2, y1 - y2
    scale = 2.0 * s / (across_x * down_y - across_y * down_x)
    out[0], out[1] = scale * down_y, -scale * down_x
    out[3], out[4] = -scale * across_y, scale * across_x
    out[2] = centre_x - s - out[0] * x2 - out[1] * y2
    out[5] = centre_y - s - out[3] * x2 - out[4] * y2


@jit(per_constant=True)
def bilinear(image, y, x, mirror):
    """Return the three channels of `image`, float32 [H, W, 3], at (y, x), bilinear.

    The border mirrors, with `mirror` without repeating its edge.
    """
    height, width, _ = image.shape
    top, left = math.floor(y), math.floor(x)
    v, u = y - top, x - left
    if mirror:
        y0, y1 = mirror_index(top, height), mirror_index(top + 1, height)
        x0, x1 = mirror_index(left, width), mirror_index(left + 1, width)
    else:
        y0, y1 = reflect_index(top, height), reflect_index(top + 1, height)
        x0, x1 = reflect_index(left, width), reflect_index(left + 1, width)
    a, b, c, d = (1.0 - v) * (1.0 - u), (1.0 - v) * u, v * (1.0 - u), v * u
    red = a * image[y0, x0, 0] + b * image[y0, x1, 0] + c * image[y1, x0, 0] + d * image[y1, x1, 0]
    green = a * image[y0, x0, 1] + b * image[y0, x1, 1] + c * image[y1, x0, 1] + d * image[y1, x1, 1]
    blue = a * image[y0, x0, 2] + b * image[y0, x1, 2] + c * image[y1, x0, 2] + d * image[y1, x1, 2]
    return red, green, blue


@jit
def elastic_image(out, image, deformation, stream, index):
    """Deform one image of `elastic_batch`."""
    displacement_px, row_weights, column_weights, jitter_px = deformation
    height, width, _ = image.shape
    words = np.empty(8 + 2 * height * width, np.uint32)
    fill_words(words, stream, index)
    move = np.zeros((height, 2 * width), np.float64)
    if displacement_px > 0.0:
        for y in range(height):
            for j in range(2 * width):
                move[y, j] = signed_uniform(words[8 + 2 * y * width + j])
        gaussian_filter(move, row_weights, column_weights, 2, True)
    unit = to_unit(image.reshape(height, 3 * width)).astype(np.float32).reshape(image.shape)
    warped = unit
    if jitter_px > 0.0:
        warped = np.empty_like(unit)
        affine = np.empty(6, np.float64)
        inverse_affine(affine, words, height, width, jitter_px)
        for y in range(height):
            for x in range(width):
                source_x = affine[0] * x + affine[1] * y + affine[2]
                source_y = affine[3] * x + affine[4] * y + affine[5]
                warped[y, x, 0], warped[y, x, 1], warped[y, x, 2] = bilinear(unit, source_y, source_x, True)
    for y in range(height):
        for x in range(width):
            source_x = x + displacement_px * move[y, 2 * x]
            source_y = y + displacement_px * move[y, 2 * x + 1]
            red, green, blue = bilinear(warped, source_y, source_x, False)
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = unit_to_level(red), unit_to_level(green), unit_to_level(blue)


@jit(nogil=True)
def elastic_batch(out, images, deformation, stream, indices):
    """Warp `images`, uint8 [N, H, W, 3], and displace their pixels, by a `Deformation`; `out` is like `images`."""
    for i in range(images.shape[0]):
        elastic_image(out[i], images[i], deformation, stream, indices[i])

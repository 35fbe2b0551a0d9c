"""Spatter of the corruption sets: water or mud on the lens. uint8 in, uint8 out.

The relief of the water follows OpenCV's integer pipeline (Canny, chamfer distance, histogram equalisation, filters)
step by step, without OpenCV. The random stream gives the normals of the liquid's layer, from slot 0 on.
"""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import gaussian_filter, mirror_index, unit_to_level
from fastmagn_kernels.corruptions.stream import fill_normals

_CANNY_LOW, _CANNY_HIGH = 50, 150
_TAN_22_5 = 13573  # in 2^-15
# The chamfer steps of OpenCV's 5 x 5 mask in 2^-16: to a side, to a corner, a knight's move.
_SIDE, _CORNER, _KNIGHT = 65536, 91750, 143976
_FAR = 1 << 28
_MAX_DISTANCE = np.float32(20)


class Liquid(NamedTuple):
    """The liquid of a spatter: smoothed normal draws, where they reach a threshold.

    Args:
        mean: Mean of the draws.
        std: Standard deviation of the draws, before they are smoothed.
        threshold: Where the layer is lower, the image is dry.
        weights: Weights that smooth the layer, float64 [2r + 1].
        mud: Whether the liquid is mud, which covers the image; water is added to it.
        mud_weights: Weights that smooth the mud's share, float64 [2r + 1].
        opacity: The largest share of water.
        colour: The colour of the liquid, float64 [3] in [0, 1].
    """

    mean: float
    std: float
    threshold: float
    weights: np.ndarray
    mud: bool
    mud_weights: np.ndarray
    opacity: float
    colour: np.ndarray


@jit
def gradient_sums(gx, gy, image):
    """Fill `gx` and `gy`, int64 [H, W], with Sobel derivatives of `image`, uint8 [H, W].

    The border repeats its edge.
    """
    height, width = image.shape
    sums, differences = np.empty(width + 2, np.int64), np.empty(width + 2, np.int64)
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            above, here, below = np.int64(image[up, x]), np.int64(image[y, x]), np.int64(image[down, x])
            sums[x + 1] = above + 2 * here + below
            differences[x + 1] = below - above
        for edge in (sums, differences):
            edge[0], edge[width + 1] = edge[1], edge[width]
        for x in range(width):
            gx[y, x] = sums[x + 2] - sums[x]
            gy[y, x] = differences[x] + 2 * differences[x + 1] + differences[x + 2]


@jit
def is_ridge(size, gx, gy, y, x):
    """Return whether the gradient's `size`, int64 [H + 2, W + 2], peaks at pixel (y, x) along its direction.

    The border of `size` is zero.
    """
    centre = size[y + 1, x + 1]
    run, rise = abs(gx[y, x]), abs(gy[y, x]) << 15
    flat = run * _TAN_22_5
    if rise < flat:
        return centre > size[y + 1, x] and centre >= size[y + 1, x + 2]
    if rise > flat + (run << 16):
        return centre > size[y, x + 1] and centre >= size[y + 2, x + 1]
    side = -1 if (gx[y, x] < 0) != (gy[y, x] < 0) else 1
    return centre > size[y, x + 1 - side] and centre > size[y + 2, x + 1 + side]


@jit
def find_edges(edges, image):
    """Set the Canny edges of `image`, uint8 [H, W], to 1 in `edges`, uint8 [H, W].

    The thresholds are 50 and 150, the size of a gradient is |gx| + |gy|.
    """
    height, width = image.shape
    gx, gy = np.empty((height, width), np.int64), np.empty((height, width), np.int64)
    gradient_sums(gx, gy, image)
    size = np.zeros((height + 2, width + 2), np.int64)
    for y in range(height):
        for x in range(width):
            size[y + 1, x + 1] = abs(gx[y, x]) + abs(gy[y, x])
    weak = np.zeros((height + 2, width + 2), np.uint8)
    stack = np.empty(height * width, np.int64)
    count = 0
    edges[:] = 0
    for y in range(height):
        for x in range(width):
            if size[y + 1, x + 1] > _CANNY_LOW and is_ridge(size, gx, gy, y, x):
                if size[y + 1, x + 1] > _CANNY_HIGH:
                    edges[y, x] = 1
                    stack[count] = y * width + x
                    count += 1
                else:
                    weak[y + 1, x + 1] = 1
    while count > 0:
        count -= 1
        y, x = stack[count] // width, stack[count] % width
        for v in range(max(y - 1, 0), min(y + 2, height)):
            for u in range(max(x - 1, 0), min(x + 2, width)):
                if weak[v + 1, u + 1] == 1:
                    weak[v + 1, u + 1] = 0
                    edges[v, u] = 1
                    stack[count] = v * width + u
                    count += 1


@jit
def nearest_behind(far, y, x, step):
    """Return the least distance at (y, x) of `far`, int64 padded by 2, through the eight cells before it in a scan."""
    best = far[y, x - step] + _SIDE
    best = min(best, far[y - step, x] + _SIDE)
    best = min(best, far[y - step, x - 1] + _CORNER)
    best = min(best, far[y - step, x + 1] + _CORNER)
    best = min(best, far[y - step, x - 2] + _KNIGHT)
    best = min(best, far[y - step, x + 2] + _KNIGHT)
    best = min(best, far[y - 2 * step, x - 1] + _KNIGHT)
    return min(best, far[y - 2 * step, x + 1] + _KNIGHT)


@jit
def distance_to_edges(out, edges):
    """Fill `out`, float32 [H, W], with the chamfer distance to the nearest of `edges`, uint8 [H, W], at most 20 px."""
    height, width = edges.shape
    far = np.full((height + 4, width + 4), _FAR, np.int64)
    for y in range(2, height + 2):
        for x in range(2, width + 2):
            far[y, x] = 0 if edges[y - 2, x - 2] else nearest_behind(far, y, x, 1)
    for y in range(height + 1, 1, -1):
        for x in range(width + 1, 1, -1):
            far[y, x] = min(far[y, x], nearest_behind(far, y, x, -1))
            out[y - 2, x - 2] = min(np.float32(far[y, x] / 65536.0), _MAX_DISTANCE)


@jit
def box_sums(out, image):
    """Fill `out`, float64 [H, W], with the sums of each 3 x 3 pixels of `image`, [H, W].

    The border mirrors without repeating its edge. All values here are multiples of 2^-16, so the order of the additions
    does not matter.
    """
    height, width = image.shape
    line = np.empty(width + 2, np.float64)
    for y in range(height):
        up, down = mirror_index(y - 1, height), mirror_index(y + 1, height)
        for x in range(width):
            line[x + 1] = np.float64(image[up, x]) + np.float64(image[y, x]) + np.float64(image[down, x])
        line[0], line[width + 1] = line[2], line[width - 1]
        for x in range(width):
            out[y, x] = line[x] + line[x + 1] + line[x + 2]


@jit
def equalize(image):
    """Equalise the histogram of `image`, uint8 [H, W], in place, as OpenCV does."""
    histogram = np.zeros(256, np.int64)
    for level in image.ravel():
        histogram[level] += 1
    first = 0
    while histogram[first] == 0:
        first += 1
    if histogram[first] == image.size:
        return
    scale = np.float32(255) / np.float32(image.size - histogram[first])
    levels = np.zeros(256, np.uint8)
    total = 0
    for level in range(first + 1, 256):
        total += histogram[level]
        levels[level] = np.uint8(np.rint(np.float32(total) * scale))
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            image[y, x] = levels[image[y, x]]


@jit
def emboss(image, y, x):
    """Filter `image`, uint8 [H, W], at (y, x) with (-2 -1 0; -1 1 1; 0 1 2), clipped to 0..255; its border mirrors."""
    height, width = image.shape
    up, down = mirror_index(y - 1, height), mirror_index(y + 1, height)
    left, right = mirror_index(x - 1, width), mirror_index(x + 1, width)
    total = np.int64(image[y, x]) + np.int64(image[y, right]) + np.int64(image[down, x])
    total += 2 * np.int64(image[down, right]) - 2 * np.int64(image[up, left])
    total -= np.int64(image[up, x]) + np.int64(image[y, left])
    return np.uint8(min(max(total, 0), 255))


@jit
def water_opacity(layer, opacity):
    """Replace the liquid `layer`, float64 [H, W], 0 where dry, by the share of water, 0..opacity."""
    height, width = layer.shape
    levels = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            levels[y, x] = np.uint8(int(layer[y, x] * 255.0) & 255)
    edges, distance = np.empty((height, width), np.uint8), np.empty((height, width), np.float32)
    find_edges(edges, levels)
    distance_to_edges(distance, edges)
    relief, lit = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    sums = np.empty((height, width), np.float64)
    box_sums(sums, distance)
    for y in range(height):
        for x in range(width):
            relief[y, x] = np.uint8(sums[y, x] / 9.0)
    equalize(relief)
    for y in range(height):
        for x in range(width):
            lit[y, x] = emboss(relief, y, x)
    box_sums(sums, lit)
    for y in range(height):
        for x in range(width):
            layer[y, x] = levels[y, x] * np.rint(sums[y, x] / 9.0)
    brightest = layer.max()
    for y in range(height):
        for x in range(width):
            layer[y, x] = layer[y, x] / brightest * opacity if brightest > 0.0 else 0.0


@jit
def mud_opacity(layer, weights):
    """Replace the liquid `layer`, float64 [H, W], 0 where dry, by the smoothed share of mud; below 0.8 it is 0."""
    for y in range(layer.shape[0]):
        for x in range(layer.shape[1]):
            layer[y, x] = 1.0 if layer[y, x] > 0.0 else 0.0
    gaussian_filter(layer, weights, weights, 1, False)
    for y in range(layer.shape[0]):
        for x in range(layer.shape[1]):
            layer[y, x] = layer[y, x] if layer[y, x] >= 0.8 else 0.0


@jit
def spatter_image(out, image, liquid, stream, index):
    """Spatter one image of `spatter_batch`."""
    height, width, _ = image.shape
    mean, std, threshold, weights, mud, mud_weights, opacity, colour = liquid
    z = np.empty(height * width, np.float32)
    fill_normals(z, stream, index)
    layer = np.empty((height, width), np.float64)
    for q in range(z.size):
        layer[q // width, q % width] = mean + std * z[q]
    gaussian_filter(layer, weights, weights, 1, False)
    for y in range(height):
        for x in range(width):
            layer[y, x] = layer[y, x] if layer[y, x] >= threshold else 0.0
    if mud:
        mud_opacity(layer, mud_weights)
    else:
        water_opacity(layer, opacity)
    for y in range(height):
        for x in range(width):
            share = layer[y, x]
            kept = 1.0 - share if mud else 1.0
            for c in range(3):
                out[y, x, c] = unit_to_level(image[y, x, c] / 255.0 * kept + share * colour[c])


@jit(nogil=True)
def spatter_batch(out, images, liquid, stream, indices):
    """Spatter `images`, uint8 [N, H, W, 3], with a `Liquid`; `out` is like `images`."""
    for i in range(images.shape[0]):
        spatter_image(out[i], images[i], liquid, stream, indices[i])

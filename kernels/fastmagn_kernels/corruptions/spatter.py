"""Spatter of the corruption sets, water or mud splashed on the lens: uint8 in, uint8 out.

The water's relief follows OpenCV's integer pipeline (Canny, chamfer distance, histogram equalisation, filters) step by
step, without OpenCV. Random stream: the liquid layer's normals, from slot 0.
"""

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.blur import gaussian_filter, mirror_index, unit_to_level
from fastmagn_kernels.random.rng import STREAM_CORRUPTION, standard_normal

_CANNY_LOW, _CANNY_HIGH = 50, 150
_TAN_22_5 = 13573  # in 2^-15
# Chamfer steps of OpenCV's 5 x 5 mask in 2^-16: to a side, a corner, a knight's move.
_SIDE, _CORNER, _KNIGHT = 65536, 91750, 143976
_FAR = 1 << 28
_MAX_DISTANCE = np.float32(20)


@jit
def gradient_sums(gx, gy, image):
    """Sobel derivatives of `image` (uint8 [H, W]) into `gx`, `gy` (int64 [H, W]); the border repeats its edge."""
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
    """Whether the gradient's `size` (int64 [H + 2, W + 2], zero border) peaks at pixel (y, x) along its direction."""
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
    """Canny edges (thresholds 50 and 150, |gx| + |gy|) of `image`, uint8 [H, W], as 1 in `edges`, uint8 [H, W]."""
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
    """Least distance at (y, x) of `far` (int64, padded by 2) through the eight cells that a scan has passed."""
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
    """Chamfer distance to the nearest edge in pixels, at most 20: `edges` uint8 [H, W] -> `out` float32 [H, W]."""
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
    """Sums of each 3 x 3 pixels of `image`, [H, W], into `out`, float64 [H, W]; the border mirrors without repeating
    its edge. Here all values are whole multiples of 2^-16, so that the order of adding does not matter.
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
    """OpenCV's histogram equalisation of `image`, uint8 [H, W], in place."""
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
    """Filter with (-2 -1 0; -1 1 1; 0 1 2) at (y, x) of `image` (uint8 [H, W]), clipped to 0..255; mirrored border."""
    height, width = image.shape
    up, down = mirror_index(y - 1, height), mirror_index(y + 1, height)
    left, right = mirror_index(x - 1, width), mirror_index(x + 1, width)
    total = np.int64(image[y, x]) + np.int64(image[y, right]) + np.int64(image[down, x])
    total += 2 * np.int64(image[down, right]) - 2 * np.int64(image[up, left])
    total -= np.int64(image[up, x]) + np.int64(image[y, left])
    return np.uint8(min(max(total, 0), 255))


@jit
def water_opacity(layer, opacity):
    """Replace the liquid `layer` (float64 [H, W], 0 where dry) by the water's share, 0..opacity."""
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
    """Replace the liquid `layer` (float64 [H, W], 0 where dry) by the mud's share: smoothed, and none below 0.8."""
    for y in range(layer.shape[0]):
        for x in range(layer.shape[1]):
            layer[y, x] = 1.0 if layer[y, x] > 0.0 else 0.0
    gaussian_filter(layer, weights, weights, 1, False)
    for y in range(layer.shape[0]):
        for x in range(layer.shape[1]):
            layer[y, x] = layer[y, x] if layer[y, x] >= 0.8 else 0.0


@jit
def spatter_image(out, image, liquid, weights, mud, mud_weights, opacity, colour, view, index, key_0, key_1):
    """One image of `spatter_batch`."""
    height, width, _ = image.shape
    mean, std, threshold = liquid
    z = np.empty(height * width, np.float32)
    standard_normal(z, STREAM_CORRUPTION, view, index, 0, key_0, key_1)
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
def spatter_batch(out, images, liquid, weights, mud, mud_weights, opacity, colour, view, indices, key_0, key_1):
    """Splash `images` (uint8 [N, H, W, 3]); `out` alike.

    `liquid` is (mean, std, threshold) of the layer, smoothed with `weights` (float64 [2r + 1]). `mud` covers with
    shares smoothed by `mud_weights`; water (not `mud`) adds up to `opacity` of the `colour`, float64 [3] in [0, 1].
    """
    for i in range(images.shape[0]):
        image, index = images[i], indices[i]
        spatter_image(out[i], image, liquid, weights, mud, mud_weights, opacity, colour, view, index, key_0, key_1)

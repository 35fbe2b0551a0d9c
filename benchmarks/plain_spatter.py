"""The relief of spattered water, in plain SciPy code with OpenCV's conventions, for `plain_corruptions`."""

import numpy as np
from scipy import ndimage


def canny(levels: np.ndarray) -> np.ndarray:
    """Find the edges of uint8 [H, W] with the L1 gradient and thresholds 50 and 150: bool [H, W]."""
    height, width = levels.shape
    signed = levels.astype(int)
    gx, gy = (ndimage.sobel(signed, axis=axis, mode="nearest") for axis in (1, 0))
    size = abs(gx) + abs(gy)
    border = np.pad(size, 1)

    def at(dy: int, dx: int) -> np.ndarray:
        return border[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    slope = abs(gy) / np.maximum(abs(gx), 1e-9)
    across = (size > at(0, -1)) & (size >= at(0, 1))
    along = (size > at(-1, 0)) & (size >= at(1, 0))
    falling = (size > at(-1, -1)) & (size > at(1, 1))
    rising = (size > at(-1, 1)) & (size > at(1, -1))
    diagonal = np.where((gx < 0) != (gy < 0), rising, falling)
    ridge = np.where(slope < np.tan(np.pi / 8), across, np.where(slope > np.tan(3 * np.pi / 8), along, diagonal))
    parts, _ = ndimage.label(ridge & (size > 50), np.ones((3, 3)))
    return np.isin(parts, np.unique(parts[ridge & (size > 150)])) & (parts > 0)


def chamfer_distance(edges: np.ndarray) -> np.ndarray:
    """Return the length of the shortest path to an edge in straight, diagonal and knight's moves; at most 20."""
    height, width = edges.shape
    lengths = {1: 1.0, 2: 1.4, 5: 2.1969}  # squared distance of a move -> its length
    moves = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if y * y + x * x in lengths]
    distance = np.where(edges, 0.0, 20.0)
    while True:
        before = np.pad(distance, 2, constant_values=20.0)
        for y, x in moves:
            stepped = before[2 + y : 2 + y + height, 2 + x : 2 + x + width] + lengths[y * y + x * x]
            np.minimum(distance, stepped, out=distance)
        if np.array_equal(distance, before[2:-2, 2:-2]):
            return distance


def equalized(levels: np.ndarray) -> np.ndarray:
    """Equalise the histogram of uint8 [H, W]: the darkest level becomes 0, the brightest 255."""
    counts = np.bincount(levels.ravel(), minlength=256)
    first = np.flatnonzero(counts)[0]
    if counts[first] == levels.size:
        return levels
    cumulative = np.cumsum(counts) - counts[first]
    new_levels = np.rint(np.maximum(cumulative, 0) * (255 / (levels.size - counts[first])))
    return new_levels.astype(np.uint8)[levels]


def water(layer: np.ndarray) -> np.ndarray:
    """Return the lit relief [H, W], at most 1, of a liquid layer, float64 [H, W], which is 0 where it is dry."""
    levels = (layer * 255).astype(np.int64).astype(np.uint8)  # values above 1 wrap, as NumPy's cast does
    relief = (ndimage.uniform_filter(chamfer_distance(canny(levels)), 3, mode="mirror") + 1e-6).astype(np.uint8)
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = np.clip(ndimage.correlate(equalized(relief).astype(int), light, mode="mirror"), 0, 255)
    wet = levels * np.rint(ndimage.uniform_filter(lit.astype(float), 3, mode="mirror"))
    return wet / max(wet.max(), 1e-9)

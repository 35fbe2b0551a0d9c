"""The corruptions that draw, written plainly with NumPy, SciPy and scikit-image and NumPy's own generator.

Each takes one image, uint8 [32, 32, 3], a severity and a generator, and returns uint8 [32, 32, 3].
"""

from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.filters import gaussian
from skimage.transform import AffineTransform, warp
from skimage.util import random_noise

from fastmagn.corruptions.frost_pictures import find_frost_pictures

Rng = np.random.Generator


def truncated(image: np.ndarray) -> np.ndarray:
    return np.uint8(np.clip(image, 0, 1) * 255)


def gaussian_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    return truncated(image / 255 + rng.normal(0, [0.04, 0.06, 0.08, 0.09, 0.1][severity - 1], image.shape))


def speckle_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    return truncated(image / 255 * (1 + rng.normal(0, [0.06, 0.1, 0.12, 0.16, 0.2][severity - 1], image.shape)))


def shot_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    photons = [500, 250, 100, 75, 50][severity - 1]
    return truncated(rng.poisson(image / 255 * photons) / photons)


def impulse_noise(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    amount = [0.01, 0.02, 0.03, 0.05, 0.07][severity - 1]
    return truncated(random_noise(image / 255, mode="s&p", amount=amount, rng=rng))


def glass_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    sigma, passes = [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)][severity - 1]
    levels = truncated(gaussian(image / 255, sigma=sigma, channel_axis=-1))
    for _ in range(passes):
        for y in range(31, 1, -1):
            back_y, back_x = rng.integers(0, 2, (2, 30))
            levels[y, 2:] = levels[y - back_y, np.arange(2, 32) - back_x]  # the right-hand side is a copy
    return truncated(gaussian(levels / 255, sigma=sigma, channel_axis=-1))


def blown(image: np.ndarray, radius: float, sigma: float, angle_deg: float) -> np.ndarray:
    """ImageMagick's motion blur of levels [32, 32, C]: a weighted sum of shifted images; float64, rounded."""
    steps = np.arange(2 * int(np.ceil(radius)) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    dx = np.ceil(steps * np.cos(np.deg2rad(angle_deg)) - 0.5).astype(int) + len(steps)
    dy = np.ceil(steps * np.sin(np.deg2rad(angle_deg)) - 0.5).astype(int) + len(steps)
    border = np.pad(image, ((len(steps),) * 2,) * 2 + ((0, 0),), mode="edge")
    total = sum(w * border[y : y + 32, x : x + 32] for w, y, x in zip(weights, dy, dx, strict=True))
    return np.rint(total / weights.sum())


def motion_blur(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    radius, sigma = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][severity - 1]
    return np.uint8(blown(image, radius, sigma, rng.uniform(-45, 45)))


def snow(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    mean, std, zoom, threshold, radius, sigma, keep = [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ][severity - 1]
    side = int(np.ceil(32 / zoom))
    first = (32 - side) // 2
    layer = rng.normal(mean, std, (32, 32))[first : first + side, first : first + side]
    layer = ndimage.zoom(layer, zoom, order=1)
    trim = (len(layer) - 32) // 2
    layer = layer[trim : trim + 32, trim : trim + 32]
    layer = truncated(np.where(layer < threshold, 0, layer))[..., None]
    layer = blown(layer, radius, sigma, rng.uniform(-135, -45)) / 255
    unit = image / 255
    grey = (unit @ [0.299, 0.587, 0.114])[..., None]
    unit = keep * unit + (1 - keep) * np.maximum(unit, grey * 1.5 + 0.5)
    return truncated(unit + layer + layer[::-1, ::-1])


@cache
def read_frost_pictures() -> list[np.ndarray]:
    return [np.asarray(Image.open(path).convert("RGB")) for path in find_frost_pictures()]


def frost(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    share, frost_share = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][severity - 1]
    picture = read_frost_pictures()[rng.integers(5)]
    height, width = (round(side * 0.2) for side in picture.shape[:2])
    top, left = rng.integers(0, height - 32), rng.integers(0, width - 32)
    centres = np.meshgrid((np.arange(top, top + 32) + 0.5) * 5 - 0.5, (np.arange(left, left + 32) + 0.5) * 5 - 0.5)
    crop = np.stack([ndimage.map_coordinates(picture[..., c], [g.T for g in centres], order=1) for c in range(3)], -1)
    return np.uint8(np.clip(share * image + frost_share * crop, 0, 255))


def plasma(decay: float, rng: Rng) -> np.ndarray:
    """Diamond-square heights on a 32 x 32 torus in [0, 1], a level at a time."""
    heights = np.zeros((1, 1))
    reach = 100.0
    while len(heights) < 32:
        side = len(heights)
        fine = np.zeros((2 * side, 2 * side))
        draw = [reach * rng.uniform(-reach, reach, (side, side)) for _ in range(3)]
        centres = sum(np.roll(heights, (-dy, -dx), (0, 1)) for dy in (0, 1) for dx in (0, 1)) / 4 + draw[0]
        beside = (heights + np.roll(heights, -1, 1) + centres + np.roll(centres, 1, 0)) / 4 + draw[1]
        under = (heights + np.roll(heights, -1, 0) + centres + np.roll(centres, 1, 1)) / 4 + draw[2]
        fine[::2, ::2], fine[1::2, 1::2], fine[::2, 1::2], fine[1::2, ::2] = heights, centres, beside, under
        heights, reach = fine, reach / decay
    return (heights - heights.min()) / (heights.max() - heights.min())


def fog(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    amount, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][severity - 1]
    brightest = image.max() / 255
    return truncated((image / 255 + amount * plasma(decay, rng)[..., None]) * brightest / (brightest + amount))


def elastic_transform(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    amount, sigma, jitter = 32 * np.array(
        [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)][severity - 1]
    )
    corners = np.array([(26.0, 26.0), (26.0, 6.0), (6.0, 6.0)])
    moved = corners + rng.uniform(-jitter, jitter, (3, 2))
    backward = AffineTransform(np.vstack([np.linalg.solve(np.c_[moved, np.ones(3)], corners).T, [0, 0, 1]]))
    warped = warp(image / 255, backward, order=1, mode="reflect")  # scikit-image's "reflect" is SciPy's mirror
    dx, dy = (
        gaussian(rng.uniform(-1, 1, (32, 32)), sigma=sigma, mode="reflect", truncate=3) * amount for _ in range(2)
    )
    y, x = np.mgrid[:32, :32]
    shifted = [ndimage.map_coordinates(warped[..., c], [y + dy, x + dx], order=1, mode="reflect") for c in range(3)]
    return truncated(np.stack(shifted, -1))


def canny(levels: np.ndarray) -> np.ndarray:
    """Edges of uint8 [32, 32] with OpenCV's conventions: L1 gradient, thresholds 50 and 150; bool [32, 32]."""
    signed = levels.astype(int)
    gx, gy = (ndimage.sobel(signed, axis=axis, mode="nearest") for axis in (1, 0))
    size = abs(gx) + abs(gy)

    def at(dy: int, dx: int) -> np.ndarray:
        return np.pad(size, 1)[1 + dy : 33 + dy, 1 + dx : 33 + dx]

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
    """Length of the shortest path of side, corner and knight's moves (1, 1.4, 2.1969) to an edge; at most 20."""
    offsets = abs(np.mgrid[:32, :32] - np.argwhere(edges)[:, :, None, None])  # [edges, 2, 32, 32]
    short, long = offsets.min(1), offsets.max(1)
    flat = (long - 2 * short) + 2.1969 * short
    diagonal = 1.4 * (2 * short - long) + 2.1969 * (long - short)
    return np.where(long >= 2 * short, flat, diagonal).min(0, initial=20.0)


def equalized(levels: np.ndarray) -> np.ndarray:
    counts = np.bincount(levels.ravel(), minlength=256)
    first = np.flatnonzero(counts)[0]
    if counts[first] == levels.size:
        return levels
    cumulative = np.cumsum(counts) - counts[first]
    return np.uint8(np.rint(np.maximum(cumulative, 0) * (255 / (levels.size - counts[first]))))[levels]


def water(layer: np.ndarray) -> np.ndarray:
    """The lit relief of a liquid layer, scaled to a maximum of 1."""
    levels = np.uint8(layer * 255)
    relief = np.uint8(ndimage.uniform_filter(chamfer_distance(canny(levels)), 3, mode="mirror") + 1e-6)
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    lit = np.clip(ndimage.correlate(equalized(relief).astype(int), light, mode="mirror"), 0, 255)
    wet = levels * np.rint(ndimage.uniform_filter(lit.astype(float), 3, mode="mirror"))
    return wet / max(wet.max(), 1e-9)


def spatter(image: np.ndarray, severity: int, rng: Rng) -> np.ndarray:
    mean, std, sigma, threshold, last = [
        (0.62, 0.1, 0.7, 0.7, 0.5),
        (0.65, 0.1, 0.8, 0.7, 0.5),
        (0.65, 0.3, 1, 0.69, 0.5),
        (0.65, 0.1, 0.7, 0.69, 0.6),
        (0.65, 0.1, 0.5, 0.68, 0.6),
    ][severity - 1]
    layer = gaussian(rng.normal(mean, std, (32, 32)), sigma=sigma)
    layer = np.where(layer < threshold, 0, layer)
    if severity <= 3:
        return truncated(image / 255 + last * water(layer)[..., None] * np.array([175, 238, 238]) / 255)
    share = gaussian((layer > threshold).astype(float), sigma=last)[..., None]
    share[share < 0.8] = 0
    return truncated(image / 255 * (1 - share) + share * np.array([63, 42, 20]) / 255)


PLAIN = {
    function.__name__: function
    for function in (
        *(gaussian_noise, shot_noise, impulse_noise, speckle_noise, glass_blur, motion_blur),
        *(snow, frost, fog, elastic_transform, spatter),
    )
}

"""C-bar's warps: pinch and twirl, ripple, circular motion blur, chromatic aberration, caustic refraction.

Each function takes images_u8, uint8 [N, H, W, 3], severity, 1..5, seed and indices, int64 [N]; it returns uint8
[N, H, W, 3]. A level in a table is the source's severity, of 0..10. CIFAR-10-C-bar and ImageNet-C-bar share none of
these: images of any size get the levels of the set that has the corruption.
"""

import math
from functools import lru_cache
from itertools import permutations

import numpy as np

from fastmagn.corruptions import size_class
from fastmagn.corruptions.blur import gaussian_weights
from fastmagn.corruptions.streams import stream_of
from fastmagn_kernels.corruptions.cbar_caustics import caustics_batch
from fastmagn_kernels.corruptions.cbar_warp import (
    CubicZoom,
    Warp,
    chromatic_batch,
    circular_blur_batch,
    pinch_and_twirl_batch,
    ripple_batch,
)

PINCH_AND_TWIRL_LEVEL = (5.5, 6.0, 6.5, 8.5, 10.0)
RIPPLE_LEVEL = (5.5, 6.0, 6.5, 7.5, 8.0)
CIRCULAR_BLUR_LEVEL = (2.8, 3.6, 4.4, 5.2, 6.0)
CHROMATIC_LEVEL = (1.0, 2.0, 5.0, 9.0, 10.0)
CAUSTICS_LEVEL = (2.35, 3.2, 4.9, 6.6, 9.15)

_NUM_TURNS = 21
_ORDERS = np.array(list(permutations(range(3))))


def pinch_and_twirl(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Pinch 3 x 3 (from 64 px on 5 x 5) cells towards their middles and twirl each to the left or to the right."""
    out = np.empty_like(images_u8)
    level, cells = PINCH_AND_TWIRL_LEVEL[severity - 1], 3 if size_class(images_u8.shape).name == "small" else 5
    height, width = images_u8.shape[1:3]
    side = min(height, width)
    warp = twirl(side // cells, 0.04 * level + 0.1, level / 10 * math.pi / 2)
    num_cells = cells * height // side, cells * width // side
    stream = stream_of("pinch_and_twirl", severity, seed)
    pinch_and_twirl_batch(out, images_u8, num_cells, warp, stream, indices)
    return out


def ripple(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Move rows and columns by sines; what comes from outside is black."""
    out = np.empty_like(images_u8)
    stream = stream_of("ripple", severity, seed)
    ripple_batch(out, images_u8, 0.0025 * RIPPLE_LEVEL[severity - 1], stream, indices)
    return out


def circular_motion_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """The mean of 21 turns about the middle, by a Gaussian; what comes from outside is black."""
    out = np.empty_like(images_u8)
    places = np.linspace(-1, 1, _NUM_TURNS)
    angles = np.radians(1.5 * CIRCULAR_BLUR_LEVEL[severity - 1] * places)
    shares = np.exp(-2 * places**2)
    turns = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    circular_blur_batch(out, images_u8, turns, shares / shares.sum())
    return out


def transverse_chromatic_abberation(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Enlarge one channel, and another one half as much, about the middle."""
    out = np.empty_like(images_u8)
    growth = 0.05 * CHROMATIC_LEVEL[severity - 1]
    scales = (1.0, 1.0 + growth / 2, 1.0 + growth)
    rows, columns = (cubic_zoom(side, scales) for side in images_u8.shape[1:3])
    stream = stream_of("transverse_chromatic_abberation", severity, seed)
    chromatic_batch(out, images_u8, _ORDERS, rows, columns, stream, indices)
    return out


def caustic_refraction(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Refract and light the image as waves do with the ground of a pool."""
    out = np.empty_like(images_u8)
    level = CAUSTICS_LEVEL[severity - 1]
    stream = stream_of("caustic_refraction", severity, seed)
    caustics_batch(out, images_u8, 0.05 * level, 0.2 * level, gaussian_weights(1, truncate=4), stream, indices)
    return out


@lru_cache(maxsize=16)
def twirl(cell_px: int, pinch: float, angle: float) -> Warp:
    """The warp of one cell: within its circle, a pixel comes from nearer to the edge, and from a turn away."""
    radius = cell_px / 2
    y, x = np.mgrid[:cell_px, :cell_px] - radius
    distance = np.hypot(y, x) / radius
    is_moved = (distance <= 1) & (distance * radius >= 0.0005)
    depth = np.where(is_moved, distance, 1.0)
    stretch, turn = np.sin(np.pi / 2 * depth) ** -pinch, angle * (1 - depth) ** 2
    places = []
    for sign in (1, -1):
        cosine, sine = np.cos(sign * turn), np.sin(sign * turn)
        moved = np.stack([y * cosine - x * sine, y * sine + x * cosine], axis=-1) * stretch[..., None]
        places.append(np.where(is_moved[..., None], moved, np.stack([y, x], axis=-1)) + radius)
    steps = np.floor(places)
    return Warp(steps.astype(np.int64), places - steps)


@lru_cache(maxsize=16)
def cubic_zoom(side_px: int, scales: tuple[float, float, float]) -> CubicZoom:
    """The middle of a side, enlarged as SciPy's `zoom` of order 3 does without its prefilter."""
    taps, weights = [], []
    for scale in scales:
        zoomed = round(side_px * scale)
        first = (zoomed - side_px) // 2
        positions = np.arange(first, first + side_px) * ((side_px - 1) / (zoomed - 1))
        start = np.floor(positions)
        t = positions - start
        s = 1 - t
        inner = [(4 - 6 * u**2 + 3 * u**3) / 6 for u in (t, s)]
        weights.append(np.stack([s**3 / 6, *inner, t**3 / 6], axis=1))
        around = np.abs(start[:, None].astype(np.int64) + np.arange(-1, 3))
        taps.append(np.where(around < side_px, around, 2 * (side_px - 1) - around))
    return CubicZoom(np.stack(taps), np.stack(weights))

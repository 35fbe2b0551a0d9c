"""Blurs: Gaussian, defocus, zoom, glass, motion. Parameters of the published 32x32 sets, by severity 1..5.

Each function: images_u8 uint8 [N, H, W, 3], severity 1..5, seed, indices int64 [N] -> uint8 [N, H, W, 3].
"""

import math
from functools import lru_cache
from itertools import groupby

import numpy as np

from fastmagn.corruptions import random_view
from fastmagn_kernels.corrupt_blur import (
    filter_batch,
    gaussian_blur_batch,
    glass_blur_batch,
    motion_blur_batch,
    zoom_blur_batch,
)
from fastmagn_kernels.rng import key_words

GAUSSIAN_SIGMA_PX = (0.4, 0.6, 0.7, 0.8, 1.0)
DEFOCUS_RADIUS_ALIAS_PX = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))  # disk radius, its blur's sigma
ZOOM_END = (1.06, 1.11, 1.16, 1.21, 1.26)  # factors from 1 in steps of 0.01, the end as numpy.arange takes it
GLASS_SIGMA_PX_PASSES = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))  # pixels move by at most 1 px a pass
MOTION_RADIUS_SIGMA_PX = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
MOTION_MAX_ANGLE_DEG = 45.0

_SMALLEST_TAP = 1e-9


def gaussian_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Gaussian blur, cut off at four sigmas, edges replicated (scikit-image's `gaussian`)."""
    out = np.empty_like(images_u8)
    weights = gaussian_weights(GAUSSIAN_SIGMA_PX[severity - 1], truncate=4)
    gaussian_blur_batch(as_rows(out), as_rows(images_u8), weights)
    return out


def defocus_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Correlation with a disk that is itself blurred; the border mirrors without repeating its edge."""
    out = np.empty_like(images_u8)
    filter_batch(as_rows(out), as_rows(images_u8), *disk_taps(*DEFOCUS_RADIUS_ALIAS_PX[severity - 1]))
    return out


def zoom_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Mean of the image and its central zooms.

    Departs from the source only for images that are not square: each side is cropped by its own length.
    """
    out = np.empty_like(images_u8)
    tables = zoom_tables(*images_u8.shape[1:3], ZOOM_END[severity - 1])
    zoom_blur_batch(as_rows(out), as_rows(images_u8), *tables)
    return out


def glass_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Gaussian blur, pixels exchanged for one at 0 or 1 px up and left, Gaussian blur again."""
    out = np.empty_like(images_u8)
    sigma_px, passes = GLASS_SIGMA_PX_PASSES[severity - 1]
    weights = gaussian_weights(sigma_px, truncate=4)
    view = random_view("glass_blur", severity)
    glass_blur_batch(as_rows(out), as_rows(images_u8), weights, passes, view, indices, *key_words(seed))
    return out


def motion_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """ImageMagick's motion blur in a direction uniform within 45 degrees of the horizontal, rounded, not truncated."""
    out = np.empty_like(images_u8)
    weights = motion_weights(*MOTION_RADIUS_SIGMA_PX[severity - 1])
    view = random_view("motion_blur", severity)
    motion_blur_batch(as_rows(out), as_rows(images_u8), weights, MOTION_MAX_ANGLE_DEG, view, indices, *key_words(seed))
    return out


def as_rows(images_u8: np.ndarray) -> np.ndarray:
    """A view of uint8 [N, H, W, 3] as [N, H, W * 3]."""
    return images_u8.reshape(*images_u8.shape[:2], -1)


def gaussian_weights(sigma_px: float, truncate: float) -> np.ndarray:
    """A normalised Gaussian as SciPy samples it: float64 [2 r + 1], r = floor(truncate * sigma + 1/2)."""
    radius = int(truncate * sigma_px + 0.5)
    weights = np.exp(-0.5 / (sigma_px * sigma_px) * np.arange(-radius, radius + 1) ** 2)
    return weights / weights.sum()


def motion_weights(radius_px: float, sigma_px: float) -> np.ndarray:
    """ImageMagick's one-sided Gaussian: float32 [2 ceil(radius) + 1], normalised."""
    weights = np.exp(-(np.arange(2 * math.ceil(radius_px) + 1) ** 2) / (2 * sigma_px**2))
    return (weights / weights.sum()).astype(np.float32)


@lru_cache(maxsize=8)
def disk_taps(radius_px: float, alias_sigma_px: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A disk blurred by a 3 x 3 Gaussian, as taps: dy, dx int64 [T], weights float64 [T] (values of float32).

    OpenCV works in float32, whose rounding leaves sums a little above 1: a flat area keeps its level.
    """
    y, x = np.mgrid[-8:9, -8:9]
    disk = (y**2 + x**2 <= radius_px**2).astype(np.float32)
    disk /= disk.sum()
    side = math.exp(-0.5 / alias_sigma_px**2)
    line = np.float32([side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side)])
    for _ in range(2):  # one axis, transposed, then the other
        around = np.pad(disk, ((1, 1), (0, 0)))
        disk = (around[1:-1] * line[1] + (around[:-2] + around[2:]) * line[0]).T
    keep = disk > _SMALLEST_TAP
    return y[keep], x[keep], disk[keep].astype(np.float64)


def zoom_samples(side_px: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Where a central zoom of a side samples it: first index int64 [side], weight of the next one float64 [side].

    The centre, ceil(side / factor) px of it, is resampled with its end points fixed (SciPy's `zoom`, order 1), and
    what is more than the side is trimmed at both ends.
    """
    crop = math.ceil(side_px / factor)
    zoomed = round(crop * factor)
    positions = np.arange(zoomed) * ((crop - 1) / (zoomed - 1))
    trim = (zoomed - side_px) // 2
    positions = positions[trim : trim + side_px]
    first = np.floor(positions)
    return first.astype(np.int64) + (side_px - crop) // 2, positions - first


@lru_cache(maxsize=16)
def zoom_tables(height_px: int, width_px: int, end: float) -> tuple[np.ndarray, ...]:
    """The zooms from 1 to `end` in steps of 0.01, neighbours that sample alike taken together.

    Returns:
        repeats, int64 [K]: how many zooms in turn are the same;
        rows, int64 [K, H], and their weights, float64 [K, H]; columns and weights [K, W]: as in `zoom_samples`.
    """
    zooms = [(*zoom_samples(height_px, z), *zoom_samples(width_px, z)) for z in np.arange(1, end, 0.01)]
    runs = [list(run) for _, run in groupby(zooms, key=lambda zoom: tuple(part.tobytes() for part in zoom))]
    repeats = np.array([len(run) for run in runs], np.int64)
    return repeats, *(np.stack([run[0][part] for run in runs]) for part in range(4))

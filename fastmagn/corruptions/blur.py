"""Blurs: Gaussian, defocus, zoom, glass, motion.

Each function takes images_u8, uint8 [N, H, W, 3], severity, 1..5, seed and indices, int64 [N]; it returns uint8
[N, H, W, 3].
"""

import math
from functools import lru_cache
from itertools import groupby

import numpy as np

from fastmagn.corruptions import BySize, parameters
from fastmagn.corruptions.streams import stream_of
from fastmagn_kernels.corruptions.blur import (
    Zooms,
    filter_batch,
    gaussian_blur_batch,
    glass_blur_batch,
    motion_blur_batch,
    zoom_blur_batch,
)

GAUSSIAN_SIGMA_PX = BySize(
    small=(0.4, 0.6, 0.7, 0.8, 1.0),
    medium=(0.5, 0.75, 1.0, 1.25, 1.5),
    large=(1.0, 2.0, 3.0, 4.0, 6.0),
)
# The disk's radius, and the sigma of the blur of the disk itself.
DEFOCUS_RADIUS_ALIAS_PX = BySize(
    small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    medium=((0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)),
    large=((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),
)
# Zoom factors from 1 to the first number in steps of the second, as numpy.arange counts them.
ZOOM_END_STEP = BySize(
    small=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    medium=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    large=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
)
# The blur's sigma, the farthest that a pass moves pixels in each direction, and the number of passes.
GLASS_SIGMA_REACH_PASSES = BySize(
    small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    medium=((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
    large=((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
)
MOTION_RADIUS_SIGMA_PX = BySize(
    small=((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
    medium=((10, 1.0), (10, 1.5), (10, 2.0), (10, 2.5), (12, 3.0)),
    large=((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),
)
MOTION_MAX_ANGLE_DEG = 45.0

_SMALLEST_TAP = 1e-9


def gaussian_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Gaussian blur, truncated at four sigmas, with replicated edges (scikit-image's `gaussian`)."""
    out = np.empty_like(images_u8)
    weights = gaussian_weights(parameters(GAUSSIAN_SIGMA_PX, images_u8, severity), truncate=4)
    gaussian_blur_batch(as_rows(out), as_rows(images_u8), weights)
    return out


def defocus_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Correlation with a blurred disk; the border is mirrored without repeating its edge."""
    out = np.empty_like(images_u8)
    taps = disk_taps(*parameters(DEFOCUS_RADIUS_ALIAS_PX, images_u8, severity))
    filter_batch(as_rows(out), as_rows(images_u8), *taps)
    return out


def zoom_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """The mean of the image and its central zooms.

    Departs from the 32x32 sets' script for images that are not square: the crop of each side depends on its own length.
    """
    out = np.empty_like(images_u8)
    zooms = make_zooms(*images_u8.shape[1:3], *parameters(ZOOM_END_STEP, images_u8, severity))
    zoom_blur_batch(as_rows(out), as_rows(images_u8), zooms)
    return out


def glass_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Gaussian blur, exchange of nearby pixels, and Gaussian blur again."""
    out = np.empty_like(images_u8)
    sigma_px, reach_px, passes = parameters(GLASS_SIGMA_REACH_PASSES, images_u8, severity)
    weights = gaussian_weights(sigma_px, truncate=4)
    stream = stream_of("glass_blur", severity, seed)
    glass_blur_batch(as_rows(out), as_rows(images_u8), weights, reach_px, passes, stream, indices)
    return out


def motion_blur(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """ImageMagick's motion blur, in a direction that is uniform within 45 degrees of the horizontal.

    Levels are rounded to the nearest, as ImageMagick rounds them. Its version 6.9.11 truncates them when it then writes
    the PNG that the published sets' scripts read.
    """
    out = np.empty_like(images_u8)
    weights = motion_weights(*parameters(MOTION_RADIUS_SIGMA_PX, images_u8, severity))
    stream = stream_of("motion_blur", severity, seed)
    motion_blur_batch(as_rows(out), as_rows(images_u8), weights, MOTION_MAX_ANGLE_DEG, stream, indices)
    return out


def as_rows(images_u8: np.ndarray) -> np.ndarray:
    """A view of uint8 [N, H, W, 3] as [N, H, W * 3]."""
    return images_u8.reshape(*images_u8.shape[:2], -1)


def gaussian_weights(sigma_px: float, truncate: float) -> np.ndarray:
    """A normalised Gaussian, sampled as in SciPy: float64 [2 r + 1], r = floor(truncate * sigma + 1/2)."""
    radius = int(truncate * sigma_px + 0.5)
    weights = np.exp(-0.5 / (sigma_px * sigma_px) * np.arange(-radius, radius + 1) ** 2)
    return weights / weights.sum()


def reflected_weights(weights: np.ndarray, side_px: int) -> np.ndarray:
    """Symmetric weights, float64 [2 r + 1], of which none reaches farther than the side of a mirrored image.

    A mirrored image repeats after two sides. Weights that read the same pixel are added: float64 [2 side_px + 1] with
    the same result, if r is more than the side.
    """
    radius = len(weights) // 2
    if radius <= side_px:
        return weights
    total = np.bincount(np.arange(-radius, radius + 1) % (2 * side_px), weights, 2 * side_px)
    total[side_px] /= 2  # read from both ends
    return np.concatenate([total[side_px:], total[: side_px + 1]])


def motion_weights(radius_px: float, sigma_px: float) -> np.ndarray:
    """ImageMagick's one-sided Gaussian, normalised: float32 [2 ceil(radius) + 1]."""
    steps = np.arange(2 * math.ceil(radius_px) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma_px**2)) / (
        math.sqrt(2 * math.pi) * sigma_px
    )  # in this form, to equal the source to the last bit
    return (weights / weights.sum()).astype(np.float32)


@lru_cache(maxsize=10)
def disk_taps(radius_px: float, alias_sigma_px: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The filter taps of a disk that is blurred by a Gaussian of 3 x 3 px (5 x 5 for radii above 8 px).

    As in OpenCV the weights are computed in float32. Their sum is rounded to a little above 1, so a flat area keeps its
    level.

    Returns:
        Offsets dy and dx, int64 [T], from -max(8, radius) to max(8, radius); weights, float64 [T] (float32 values).
    """
    half = max(8, math.ceil(radius_px))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    disk = (y**2 + x**2 <= radius_px**2).astype(np.float32)
    disk /= disk.sum()
    reach = 1 if radius_px <= 8 else 2
    line = np.exp(-(np.arange(reach + 1) ** 2) / (2 * alias_sigma_px**2))
    line = (line / (line[0] + 2 * line[1:].sum())).astype(np.float32)
    for _ in range(2):  # along one axis, then, transposed, along the other
        around = np.pad(disk, ((reach, reach), (0, 0)), mode="reflect")  # disks of 8 px and more touch their border
        centre = around[reach:-reach] * line[0]
        for k in range(1, reach + 1):
            centre = centre + (around[reach - k : -reach - k] + around[reach + k :][: len(disk)]) * line[k]
        disk = centre.T
    keep = disk > _SMALLEST_TAP
    return y[keep], x[keep], disk[keep].astype(np.float64)


def zoom_samples(side_px: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The samples of a central zoom along a side: first index, int64 [side]; weight of the next one, float64 [side].

    The central ceil(side / factor) px are resampled with fixed end points (SciPy's `zoom`, order 1), and the result is
    trimmed to the side at both ends.
    """
    crop = math.ceil(side_px / factor)
    zoomed = round(crop * factor)
    positions = np.arange(zoomed) * ((crop - 1) / (zoomed - 1))
    first = np.floor(positions)
    trim = (zoomed - side_px) // 2
    kept = slice(trim, trim + side_px)
    return first[kept].astype(np.int64) + (side_px - crop) // 2, (positions - first)[kept]


@lru_cache(maxsize=16)
def make_zooms(height_px: int, width_px: int, end: float, step: float) -> Zooms:
    """The zooms from 1 to `end` by `step`; consecutive zooms with the same samples are merged."""
    zooms = [(*zoom_samples(height_px, z), *zoom_samples(width_px, z)) for z in np.arange(1, end, step)]
    runs = [list(run) for _, run in groupby(zooms, key=lambda zoom: tuple(part.tobytes() for part in zoom))]
    repeats = np.array([len(run) for run in runs], np.int64)
    return Zooms(repeats, *(np.stack([run[0][part] for run in runs]) for part in range(4)))

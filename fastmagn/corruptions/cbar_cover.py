"""C-bar's covers: checkerboard cutout, lines, sparkles, inverse sparkles.

Each function takes images_u8, uint8 [N, H, W, 3], severity, 1..5, seed and indices, int64 [N]; it returns uint8
[N, H, W, 3]. A level in a table is the source's severity, of 0..10.
"""

import numpy as np

from fastmagn.corruptions import parameters
from fastmagn.corruptions.sets import cbar_levels
from fastmagn.corruptions.streams import stream_of
from fastmagn_kernels.corruptions.cbar_cover import (
    checkerboard_batch,
    inverse_sparkles_batch,
    lines_batch,
    sparkles_batch,
)

CHECKERBOARD_LEVEL = cbar_levels((1.0, 2.0, 3.0, 4.0, 5.0), (2.0, 3.0, 4.0, 5.0, 6.0))
SPARKLES_LEVEL = cbar_levels((0.7, 3.5, 5.6, 6.3, 7.0), (1.0, 2.0, 3.0, 5.0, 6.0))
INVERSE_SPARKLES_LEVEL = cbar_levels((1.0, 1.5, 2.5, 4.5, 5.0), (1.0, 2.0, 4.0, 9.0, 10.0))
# ImageNet-C-bar has no lines: images of any size get CIFAR-10-C-bar's levels.
LINES_LEVEL = (0.5, 1.0, 1.5, 2.0, 2.5)


def checkerboard_cutout(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Grey out some of the black fields of a turned checkerboard."""
    out = np.empty_like(images_u8)
    fraction = parameters(CHECKERBOARD_LEVEL, images_u8, severity) / 10
    stream = stream_of("checkerboard_cutout", severity, seed)
    checkerboard_batch(out, images_u8, fraction, stream, indices)
    return out


def lines(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Draw long grey lines, anti-aliased."""
    out = np.empty_like(images_u8)
    num_lines = int(LINES_LEVEL[severity - 1] / 10 * min(images_u8.shape[1:3]))
    lines_batch(out, images_u8, num_lines, stream_of("lines", severity, seed), indices)
    return out


def sparkles(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Add five white sparkles with rays."""
    out = np.empty_like(images_u8)
    radius_share = 0.01 * parameters(SPARKLES_LEVEL, images_u8, severity)
    stream = stream_of("sparkles", severity, seed)
    sparkles_batch(out, images_u8, radius_share, stream, indices)
    return out


def inverse_sparkles(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Whiten all but a sparkle near the middle."""
    out = np.empty_like(images_u8)
    exponent = 6.5 * parameters(INVERSE_SPARKLES_LEVEL, images_u8, severity) / 50
    stream = stream_of("inverse_sparkles", severity, seed)
    inverse_sparkles_batch(out, images_u8, exponent, stream, indices)
    return out

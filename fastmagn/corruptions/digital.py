"""Brightness, contrast, saturation, JPEG, pixelation, elastic deformation.

Each function takes images_u8, uint8 [N, H, W, 3], severity, 1..5, seed and indices, int64 [N]; it returns uint8
[N, H, W, 3].
"""

import math
from functools import lru_cache

import numpy as np

from fastmagn.corruptions import BySize, parameters
from fastmagn.corruptions.blur import as_rows, gaussian_weights, reflected_weights
from fastmagn.corruptions.streams import stream_of
from fastmagn_kernels.corruptions.colour import contrast_batch, hsv_batch, pixelate_batch
from fastmagn_kernels.corruptions.elastic import Deformation, elastic_batch
from fastmagn_kernels.corruptions.jpeg import jpeg_batch

# Shift of the value in [0, 1].
BRIGHTNESS_SHIFT = BySize(
    small=(0.05, 0.1, 0.15, 0.2, 0.3),
    medium=(0.1, 0.2, 0.3, 0.4, 0.5),
    large=(0.1, 0.2, 0.3, 0.4, 0.5),
)
CONTRAST_FACTOR = BySize(
    small=(0.75, 0.5, 0.4, 0.3, 0.15),
    medium=(0.4, 0.3, 0.2, 0.1, 0.05),
    large=(0.4, 0.3, 0.2, 0.1, 0.05),
)
SATURATE_FACTOR_SHIFT = BySize(
    small=((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
    medium=((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (30.0, 0.2)),
    large=((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
)
JPEG_QUALITY = BySize(small=(80, 65, 58, 50, 40), medium=(65, 58, 50, 40, 25), large=(25, 18, 15, 10, 7))
# Size of the coarse image, as a share of the image's.
PIXELATE_FACTOR = BySize(
    small=(0.95, 0.9, 0.85, 0.75, 0.65),
    medium=(0.9, 0.8, 0.7, 0.6, 0.5),
    large=(0.6, 0.5, 0.4, 0.3, 0.25),
)
# Displacement, its smoothing, the affine warp's jitter, as shares of the shorter side.
ELASTIC_SHARES = BySize(
    small=((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    medium=((0.0, 0.0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
    large=tuple(  # the script takes shares of 244 px where the side is 224
        tuple(share * 244 / 224 for share in shares)
        for shares in ((2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    ),
)

# The standard's example tables for quality 50 (ITU-T T.81, annex K); the vertical frequency grows from row to row.
JPEG_LUMA_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
JPEG_CHROMA_TABLE = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)


def brightness(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Add to the value in HSV."""
    out = np.empty_like(images_u8)
    hsv_batch(as_pixels(out), as_pixels(images_u8), 1.0, 0.0, parameters(BRIGHTNESS_SHIFT, images_u8, severity))
    return out


def saturate(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Scale and shift the saturation in HSV."""
    out = np.empty_like(images_u8)
    hsv_batch(as_pixels(out), as_pixels(images_u8), *parameters(SATURATE_FACTOR_SHIFT, images_u8, severity), 0.0)
    return out


def contrast(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Scale each channel's distance from its own mean."""
    out = np.empty_like(images_u8)
    contrast_batch(as_pixels(out), as_pixels(images_u8), parameters(CONTRAST_FACTOR, images_u8, severity))
    return out


def pixelate(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Resize down and up again as Pillow's BOX does, equal to the bit.

    One exception: Pillow 13 resizes images that are about twice as high as wide along the columns first; some pixels
    then differ by one level.
    """
    out = np.empty_like(images_u8)
    _, height, width, _ = images_u8.shape
    factor = parameters(PIXELATE_FACTOR, images_u8, severity)
    small_height, small_width = int(height * factor), int(width * factor)
    down = box_weights(width, small_width), box_weights(height, small_height)
    up = box_weights(small_width, width), box_weights(small_height, height)
    pixelate_batch(as_rows(out), as_rows(images_u8), *down, *up)
    return out


def jpeg_compression(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Write and read a JPEG, equal to Pillow with libjpeg-turbo to the bit."""
    return through_jpeg(images_u8, parameters(JPEG_QUALITY, images_u8, severity))


def through_jpeg(images_u8: np.ndarray, quality: int) -> np.ndarray:
    """Images, uint8 [N, H, W, 3], after a JPEG file of a quality, 1..100."""
    out = np.empty_like(images_u8)
    jpeg_batch(out, images_u8, jpeg_table(JPEG_LUMA_TABLE, quality), jpeg_table(JPEG_CHROMA_TABLE, quality))
    return out


def elastic_transform(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """A random affine warp (mirrored border), then a smooth random displacement (reflected border), both bilinear.

    OpenCV, in the published sets' scripts, rounds the warp's positions to 1/32 px; here they are exact.
    """
    out = np.empty_like(images_u8)
    _, height, width, _ = images_u8.shape
    side = min(height, width)
    displacement_px, sigma_px, jitter_px = (share * side for share in parameters(ELASTIC_SHARES, images_u8, severity))
    weights = gaussian_weights(sigma_px, truncate=3) if sigma_px else np.ones(1)
    smoothing = reflected_weights(weights, height), reflected_weights(weights, width)
    deformation = Deformation(displacement_px, *smoothing, jitter_px)
    stream = stream_of("elastic_transform", severity, seed)
    elastic_batch(out, images_u8, deformation, stream, indices)
    return out


def as_pixels(images_u8: np.ndarray) -> np.ndarray:
    """A view of uint8 [N, H, W, 3] as [N, H * W, 3]."""
    return images_u8.reshape(len(images_u8), -1, 3)


def jpeg_table(table: tuple[int, ...], quality: int) -> np.ndarray:
    """libjpeg's quantisation table for a quality, 1..100, from the one for 50: whole numbers 1..255, float64 [8, 8]."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((np.array(table) * scale + 50) // 100, 1, 255).astype(np.float64).reshape(8, 8)


@lru_cache(maxsize=64)
def box_weights(side_px: int, new_side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's BOX filter from one side's length to another.

    Returns:
        The first source index of each output pixel, int64 [new_side]; weights in units of 2^-22, int64 [new_side, K].
    """
    scale = side_px / new_side_px
    reach = max(scale, 1.0)
    starts = np.zeros(new_side_px, np.int64)
    weights = np.zeros((new_side_px, math.ceil(reach / 2) * 2 + 1), np.int64)
    for x in range(new_side_px):
        centre = (x + 0.5) * scale
        starts[x] = max(int(centre - reach / 2 + 0.5), 0)
        window = np.arange(starts[x], min(int(centre + reach / 2 + 0.5), side_px))
        position = (window - centre + 0.5) * (1 / reach)  # rounded as in Pillow: a position can lie on the edge
        inside = ((position > -0.5) & (position <= 0.5)).astype(np.float64)
        weights[x, : len(window)] = (inside / inside.sum() * 2**22 + 0.5).astype(np.int64)
    return starts, weights

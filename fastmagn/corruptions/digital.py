"""Brightness, contrast, saturation, JPEG, pixelation, elastic deformation, by severity 1..5, as in the 32x32 sets.

Each function: images_u8 uint8 [N, H, W, 3], severity 1..5, seed, indices int64 [N] -> uint8 [N, H, W, 3].
"""

import math
import threading
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image

from fastmagn.corruptions import random_view
from fastmagn.corruptions.blur import as_rows, gaussian_weights
from fastmagn_kernels.corrupt_colour import contrast_batch, hsv_batch, pixelate_batch
from fastmagn_kernels.corrupt_elastic import elastic_batch
from fastmagn_kernels.rng import key_words

BRIGHTNESS_SHIFT = (0.05, 0.1, 0.15, 0.2, 0.3)  # of the value in [0, 1]
CONTRAST_FACTOR = (0.75, 0.5, 0.4, 0.3, 0.15)
SATURATE_FACTOR_SHIFT = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))
JPEG_QUALITY = (80, 65, 58, 50, 40)
PIXELATE_FACTOR = (0.95, 0.9, 0.85, 0.75, 0.65)  # size of the small image
# Displacement, its smoothing and the affine warp's jitter, in shares of the shorter side.
ELASTIC_SHARES = ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))

# So small an image spends its time in Python: two threads would only hand its lock to and fro, 1.5 times slower.
_PILLOW_LOCK = threading.Lock()


def brightness(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Add to the value of HSV."""
    out = np.empty_like(images_u8)
    hsv_batch(as_pixels(out), as_pixels(images_u8), 1.0, 0.0, BRIGHTNESS_SHIFT[severity - 1])
    return out


def saturate(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Scale and shift the saturation of HSV."""
    out = np.empty_like(images_u8)
    hsv_batch(as_pixels(out), as_pixels(images_u8), *SATURATE_FACTOR_SHIFT[severity - 1], 0.0)
    return out


def contrast(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Scale each channel's distance from its own mean."""
    out = np.empty_like(images_u8)
    contrast_batch(as_pixels(out), as_pixels(images_u8), CONTRAST_FACTOR[severity - 1])
    return out


def pixelate(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Pillow's BOX resize down and up again, to the bit.

    Except that Pillow 13 resizes images about twice as high as wide along the columns first: one level on some pixels.
    """
    out = np.empty_like(images_u8)
    _, height, width, _ = images_u8.shape
    factor = PIXELATE_FACTOR[severity - 1]
    small_height, small_width = int(height * factor), int(width * factor)
    down = box_weights(width, small_width), box_weights(height, small_height)
    up = box_weights(small_width, width), box_weights(small_height, height)
    pixelate_batch(as_rows(out), as_rows(images_u8), *down, *up)
    return out


def jpeg_compression(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Pillow's JPEG, written and read."""
    out = np.empty_like(images_u8)
    with _PILLOW_LOCK:
        for i, image in enumerate(images_u8):
            stream = BytesIO()
            Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY[severity - 1])
            out[i] = Image.open(stream)
    return out


def elastic_transform(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """A random affine warp (mirrored border), then a smooth random displacement (reflected border), both bilinear.

    The source's OpenCV samples the warp at 1/32 px; here the position is exact.
    """
    out = np.empty_like(images_u8)
    side_px = min(images_u8.shape[1:3])
    displacement_px, sigma_px, jitter_px = (share * side_px for share in ELASTIC_SHARES[severity - 1])
    weights = gaussian_weights(sigma_px, truncate=3) if sigma_px else np.ones(1)
    view = random_view("elastic_transform", severity)
    elastic_batch(out, images_u8, displacement_px, weights, jitter_px, view, indices, *key_words(seed))
    return out


def as_pixels(images_u8: np.ndarray) -> np.ndarray:
    """A view of uint8 [N, H, W, 3] as [N, H * W, 3]."""
    return images_u8.reshape(len(images_u8), -1, 3)


@lru_cache(maxsize=64)
def box_weights(side_px: int, new_side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's BOX filter from one side's length to another.

    Returns:
        First source index of each output pixel, int64 [new_side]; weights in 2^-22, int64 [new_side, K].
    """
    scale = side_px / new_side_px
    reach = max(scale, 1.0)
    starts = np.zeros(new_side_px, np.int64)
    weights = np.zeros((new_side_px, math.ceil(reach / 2) * 2 + 1), np.int64)
    for x in range(new_side_px):
        centre = (x + 0.5) * scale
        starts[x] = max(int(centre - reach / 2 + 0.5), 0)
        window = np.arange(starts[x], min(int(centre + reach / 2 + 0.5), side_px))
        position = (window - centre + 0.5) * (1 / reach)  # as Pillow rounds it: a position can lie on the edge
        inside = ((position > -0.5) & (position <= 0.5)).astype(np.float64)
        weights[x, : len(window)] = (inside / inside.sum() * 2**22 + 0.5).astype(np.int64)
    return starts, weights

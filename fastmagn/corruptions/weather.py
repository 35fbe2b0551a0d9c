"""Snow, frost, fog and spatter. Parameters of the published 32x32 sets, by severity 1..5.

Each function: images_u8 uint8 [N, H, W, 3], severity 1..5, seed, indices int64 [N] -> uint8 [N, H, W, 3].
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastmagn.corruptions import random_view
from fastmagn.corruptions.blur import gaussian_weights, motion_weights, zoom_samples
from fastmagn.corruptions.frost_pictures import load_frost_pictures
from fastmagn.errors import check
from fastmagn_kernels.corrupt_spatter import spatter_batch
from fastmagn_kernels.corrupt_weather import fog_batch, frost_batch, snow_batch
from fastmagn_kernels.rng import key_words


class Snow(NamedTuple):
    """Flakes are normal draws (mean, std), magnified, kept from the threshold on, blown by a motion blur."""

    mean: float
    std: float
    magnification: float
    threshold: float
    blur_radius_px: int
    blur_sigma_px: float
    keep: float  # share of the image that is not whitened


class Spatter(NamedTuple):
    """Liquid is where smoothed normal draws (mean, std, sigma) reach the threshold."""

    mean: float
    std: float
    sigma_px: float
    threshold: float
    water_opacity: float  # 0 for mud
    mud_sigma_px: float  # 0 for water


SNOW = (
    Snow(0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    Snow(0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    Snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    Snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    Snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)
FROST_SHARES = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))  # of the image and of the frost
FOG_AMOUNT_DECAY = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
SPATTER = (
    Spatter(0.62, 0.1, 0.7, 0.7, water_opacity=0.5, mud_sigma_px=0),
    Spatter(0.65, 0.1, 0.8, 0.7, water_opacity=0.5, mud_sigma_px=0),
    Spatter(0.65, 0.3, 1, 0.69, water_opacity=0.5, mud_sigma_px=0),
    Spatter(0.65, 0.1, 0.7, 0.69, water_opacity=0.0, mud_sigma_px=0.6),
    Spatter(0.65, 0.1, 0.5, 0.68, water_opacity=0.0, mud_sigma_px=0.6),
)
WATER_COLOUR = (175 / 255, 238 / 255, 238 / 255)
MUD_COLOUR = (63 / 255, 42 / 255, 20 / 255)


def snow(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Flakes blown by the wind and their image turned by 180 degrees, on a whitened image."""
    out = np.empty_like(images_u8)
    s = SNOW[severity - 1]
    _, height, width, _ = images_u8.shape
    zoom = (*zoom_samples(height, s.magnification), *zoom_samples(width, s.magnification))
    weights = motion_weights(s.blur_radius_px, s.blur_sigma_px)
    flakes = (s.mean, s.std, s.threshold)
    view = random_view("snow", severity)
    snow_batch(out, images_u8, flakes, s.keep, zoom, weights, view, indices, *key_words(seed))
    return out


def frost(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Weighted sum with a crop of one of five pictures of frost.

    Raises:
        InputError: The pictures are not installed, or the images are too large for them.
    """
    pixels, starts, heights, widths = _frost_arrays()
    _, height, width, _ = images_u8.shape
    largest = f"at most {heights.min() - 1} px high and {widths.min() - 1} px wide, the pictures' size less 1"
    check(height < heights.min() and width < widths.min(), "frost: image size", f"{height} x {width}", largest)
    out = np.empty_like(images_u8)
    shares, view = FROST_SHARES[severity - 1], random_view("frost", severity)
    frost_batch(out, images_u8, pixels, starts, heights, widths, *shares, view, indices, *key_words(seed))
    return out


@lru_cache(maxsize=1)
def _frost_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pictures as the kernel takes them: pixels uint8 [P, 3]; first pixel, height, width of each, int64 [5]."""
    pictures = load_frost_pictures()
    heights, widths = np.array([picture.shape[:2] for picture in pictures], np.int64).T.copy()
    starts = np.cumsum(heights * widths) - heights * widths
    return np.concatenate([picture.reshape(-1, 3) for picture in pictures]), starts, heights, widths


def fog(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Add diamond-square plasma and scale back to the image's own maximum."""
    out = np.empty_like(images_u8)
    amount, decay = FOG_AMOUNT_DECAY[severity - 1]
    map_side = 1 << (max(images_u8.shape[1:3]) - 1).bit_length()
    view = random_view("fog", severity)
    fog_batch(out, images_u8, amount, decay, map_side, view, indices, *key_words(seed))
    return out


def spatter(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Splashes of water (severities 1 to 3), lit by the distance to their edges, or of mud (4 and 5).

    Departs from the source only where no water is left: the image stays, where the source divides 0 by 0.
    """
    out = np.empty_like(images_u8)
    s = SPATTER[severity - 1]
    mud = s.mud_sigma_px > 0
    colour = np.array(MUD_COLOUR if mud else WATER_COLOUR)
    weights = gaussian_weights(s.sigma_px, truncate=4)
    mud_weights = gaussian_weights(s.mud_sigma_px, truncate=4) if mud else np.ones(1)
    liquid = (s.mean, s.std, s.threshold)
    keys = (random_view("spatter", severity), indices, *key_words(seed))
    spatter_batch(out, images_u8, liquid, weights, mud, mud_weights, s.water_opacity, colour, *keys)
    return out

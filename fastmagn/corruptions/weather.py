"""Snow, frost, fog and spatter.

Each function takes images_u8, uint8 [N, H, W, 3], severity, 1..5, seed and indices, int64 [N]; it returns uint8
[N, H, W, 3].
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fastmagn.corruptions import BySize, parameters, size_class
from fastmagn.corruptions.blur import gaussian_weights, motion_weights, zoom_samples
from fastmagn.corruptions.frost_pictures import PictureSize, frost_sizes, load_frost_pictures
from fastmagn.corruptions.streams import stream_of
from fastmagn_kernels.corruptions.blur import Zoom
from fastmagn_kernels.corruptions.spatter import Liquid, spatter_batch
from fastmagn_kernels.corruptions.weather import FrostPictures, Snowfall, fog_batch, frost_batch, snow_batch


class Snow(NamedTuple):
    """Flakes are normal draws (mean, std), magnified, kept at or above the threshold, and blown by a motion blur."""

    mean: float
    std: float
    magnification: float
    threshold: float
    blur_radius_px: int
    blur_sigma_px: float
    keep: float  # share of the image that is not whitened


class Spatter(NamedTuple):
    """Liquid covers the pixels where smoothed normal draws (mean, std, sigma) reach the threshold."""

    mean: float
    std: float
    sigma_px: float
    threshold: float
    water_opacity: float  # 0 for mud
    mud_sigma_px: float  # 0 for water


SNOW = BySize(
    small=(
        Snow(0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        Snow(0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        Snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        Snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        Snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    medium=(
        Snow(0.1, 0.2, 1, 0.6, 8, 3, 0.8),
        Snow(0.1, 0.2, 1, 0.5, 10, 4, 0.8),
        Snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
        Snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
        Snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
    ),
    large=(
        Snow(0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        Snow(0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        Snow(0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        Snow(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        Snow(0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
)
# Shares of the image and of the frost.
FROST_SHARES = BySize(
    small=((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    medium=((1.0, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
    large=((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
)
FOG_AMOUNT_DECAY = BySize(
    small=((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    medium=((0.4, 3.0), (0.7, 3.0), (1.0, 2.5), (1.5, 2.0), (2.0, 1.75)),
    large=((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
)
SPATTER = BySize(
    small=(
        Spatter(0.62, 0.1, 0.7, 0.7, water_opacity=0.5, mud_sigma_px=0),
        Spatter(0.65, 0.1, 0.8, 0.7, water_opacity=0.5, mud_sigma_px=0),
        Spatter(0.65, 0.3, 1, 0.69, water_opacity=0.5, mud_sigma_px=0),
        Spatter(0.65, 0.1, 0.7, 0.69, water_opacity=0.0, mud_sigma_px=0.6),
        Spatter(0.65, 0.1, 0.5, 0.68, water_opacity=0.0, mud_sigma_px=0.6),
    ),
    medium=(
        Spatter(0.62, 0.1, 0.7, 0.7, water_opacity=0.6, mud_sigma_px=0),
        Spatter(0.65, 0.1, 0.8, 0.7, water_opacity=0.6, mud_sigma_px=0),
        Spatter(0.65, 0.3, 1, 0.69, water_opacity=0.6, mud_sigma_px=0),
        Spatter(0.65, 0.1, 0.7, 0.68, water_opacity=0.0, mud_sigma_px=0.6),
        Spatter(0.65, 0.1, 0.5, 0.67, water_opacity=0.0, mud_sigma_px=0.6),
    ),
    large=(
        Spatter(0.65, 0.3, 4, 0.69, water_opacity=0.6, mud_sigma_px=0),
        Spatter(0.65, 0.3, 3, 0.68, water_opacity=0.6, mud_sigma_px=0),
        Spatter(0.65, 0.3, 2, 0.68, water_opacity=0.5, mud_sigma_px=0),
        Spatter(0.65, 0.3, 1, 0.65, water_opacity=0.0, mud_sigma_px=1.5),
        Spatter(0.67, 0.4, 1, 0.65, water_opacity=0.0, mud_sigma_px=1.5),
    ),
)
WATER_COLOUR = (175 / 255, 238 / 255, 238 / 255)
MUD_COLOUR = (63 / 255, 42 / 255, 20 / 255)


def snow(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Flakes blown by the wind, and the same flakes turned by 180 degrees, on a whitened image.

    The wind, a motion blur, works on the middle of the magnified layer, rounded to whole levels.
    """
    out = np.empty_like(images_u8)
    s = parameters(SNOW, images_u8, severity)
    _, height, width, _ = images_u8.shape
    zoom = Zoom(*zoom_samples(height, s.magnification), *zoom_samples(width, s.magnification))
    weights = motion_weights(s.blur_radius_px, s.blur_sigma_px)
    snowfall = Snowfall(s.mean, s.std, s.threshold, s.keep, zoom, weights)
    stream = stream_of("snow", severity, seed)
    snow_batch(out, images_u8, snowfall, stream, indices)
    return out


def frost(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """A weighted sum with a crop of one of five pictures of frost.

    Raises:
        InputError: The pictures are not installed.
    """
    out = np.empty_like(images_u8)
    height_px, width_px = images_u8.shape[1:3]
    pictures = _frost_arrays(frost_sizes(height_px, width_px, size_class(images_u8.shape).frost_scale))
    shares = parameters(FROST_SHARES, images_u8, severity)
    stream = stream_of("frost", severity, seed)
    frost_batch(out, images_u8, pictures, *shares, stream, indices)
    return out


def fog(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Diamond-square plasma added to the image, scaled back to the image's own maximum."""
    out = np.empty_like(images_u8)
    amount, decay = parameters(FOG_AMOUNT_DECAY, images_u8, severity)
    map_side = 1 << (max(images_u8.shape[1:3]) - 1).bit_length()
    stream = stream_of("fog", severity, seed)
    fog_batch(out, images_u8, amount, decay, map_side, stream, indices)
    return out


def spatter(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Splashes of water (severities 1 to 3), lit by the distance to their edges, or of mud (4 and 5).

    Departs from the source only if no water is left: the image stays unchanged, and the source divides 0 by 0.
    """
    out = np.empty_like(images_u8)
    s = parameters(SPATTER, images_u8, severity)
    mud = s.mud_sigma_px > 0
    liquid = Liquid(
        mean=s.mean,
        std=s.std,
        threshold=s.threshold,
        weights=gaussian_weights(s.sigma_px, truncate=4),
        mud=mud,
        mud_weights=gaussian_weights(s.mud_sigma_px, truncate=4) if mud else np.ones(1),
        opacity=s.water_opacity,
        colour=np.array(MUD_COLOUR if mud else WATER_COLOUR),
    )
    spatter_batch(out, images_u8, liquid, stream_of("spatter", severity, seed), indices)
    return out


@lru_cache(maxsize=4)
def _frost_arrays(sizes: tuple[PictureSize, ...]) -> FrostPictures:
    """The pictures at these sizes, in the form that the kernel takes."""
    pictures = load_frost_pictures(sizes)
    heights, widths = np.array([picture.shape[:2] for picture in pictures], np.int64).T.copy()
    starts = np.cumsum(heights * widths) - heights * widths
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
    return FrostPictures(pixels, starts, heights, widths)

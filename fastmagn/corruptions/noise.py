"""Noise: Gaussian, shot, impulse, speckle.

Each function takes images_u8, uint8 [N, H, W, 3], severity, 1..5, seed and indices, int64 [N]; it returns uint8
[N, H, W, 3].
"""

from functools import lru_cache

import numpy as np

from fastmagn.corruptions import BySize, parameters
from fastmagn.corruptions.streams import stream_of
from fastmagn_kernels.corruptions.noise import impulse_noise_batch, normal_noise_batch, shot_noise_batch

# Standard deviation, pixels in [0, 1].
GAUSSIAN_STD = BySize(
    small=(0.04, 0.06, 0.08, 0.09, 0.10),
    medium=(0.04, 0.08, 0.12, 0.15, 0.18),
    large=(0.08, 0.12, 0.18, 0.26, 0.38),
)
# Expected number of photons of a white pixel.
SHOT_PHOTONS = BySize(
    small=(500, 250, 100, 75, 50),
    medium=(250, 100, 50, 30, 15),
    large=(60, 25, 12, 5, 3),
)
# Share of the values that are replaced.
IMPULSE_AMOUNT = BySize(
    small=(0.01, 0.02, 0.03, 0.05, 0.07),
    medium=(0.01, 0.02, 0.05, 0.08, 0.14),
    large=(0.03, 0.06, 0.09, 0.17, 0.27),
)
# Standard deviation, as a share of the pixel's own value.
SPECKLE_STD = BySize(
    small=(0.06, 0.1, 0.12, 0.16, 0.2),
    medium=(0.15, 0.2, 0.25, 0.3, 0.35),
    large=(0.15, 0.2, 0.35, 0.45, 0.6),
)


def gaussian_noise(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """x + std * z, with z standard normal for each value."""
    std = parameters(GAUSSIAN_STD, images_u8, severity)
    return _normal_noise(images_u8, std, False, "gaussian_noise", severity, seed, indices)


def speckle_noise(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """x + x * std * z, with z standard normal for each value."""
    std = parameters(SPECKLE_STD, images_u8, severity)
    return _normal_noise(images_u8, std, True, "speckle_noise", severity, seed, indices)


def shot_noise(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """k / photons, with k from a Poisson distribution of mean x * photons, by inverting the distribution function."""
    out = np.empty_like(images_u8)
    flat, flat_out = images_u8.reshape(len(images_u8), -1), out.reshape(len(out), -1)
    tables = shot_tables(parameters(SHOT_PHOTONS, images_u8, severity))
    stream = stream_of("shot_noise", severity, seed)
    shot_noise_batch(flat_out, flat, *tables, stream, indices)
    return out


@lru_cache(maxsize=10)
def shot_tables(photons: int) -> tuple[np.ndarray, np.ndarray]:
    """Tables that map a level and a uniform 32-bit word to the level after shot noise.

    There are 256 input levels and 256 output levels, so shot noise consists of 256 distribution functions over 256
    levels. The tables hold each probability to 2^-32, and no Poisson sampler is needed, which would take a varying
    number of draws.

    Returns:
        First levels, uint8 [256, 256]: for an input level and the word's top byte, the lowest possible output level.
        Last words, uint32 [256, 256]: for an input level and an output level, the largest word that gives at most this
        level.
    """
    from scipy.special import pdtr  # here, as it takes half a second to import

    counts = np.arange(photons + 1)
    level_of_count = (np.clip(counts / photons, 0, 1) * 255).astype(np.uint8)
    largest_count = np.searchsorted(level_of_count, np.arange(256), side="right") - 1
    means = np.arange(256)[:, None] / 255 * photons
    cumulative = pdtr(np.maximum(largest_count, 0)[None, :], means)
    cumulative[:, 255] = 1.0
    words_up_to = np.rint(cumulative * 2.0**32).astype(np.int64)
    first_words = np.arange(256, dtype=np.int64) << 24
    starts = [np.searchsorted(row, first_words, side="right") for row in words_up_to]
    return np.array(starts, np.uint8), np.maximum(words_up_to - 1, 0).astype(np.uint32)


def impulse_noise(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Salt and pepper, half each, for each value separately (scikit-image's random_noise, mode "s&p")."""
    out = np.empty_like(images_u8)
    flat, flat_out = images_u8.reshape(len(images_u8), -1), out.reshape(len(out), -1)
    flip_below = round(parameters(IMPULSE_AMOUNT, images_u8, severity) * 2**32)
    bounds = np.uint64(flip_below // 2), np.uint64(flip_below)
    stream = stream_of("impulse_noise", severity, seed)
    impulse_noise_batch(flat_out, flat, *bounds, stream, indices)
    return out


def _normal_noise(
    images_u8: np.ndarray, std: float, of_signal: bool, name: str, severity: int, seed: int, indices: np.ndarray
) -> np.ndarray:
    out = np.empty_like(images_u8)
    flat, flat_out = images_u8.reshape(len(images_u8), -1), out.reshape(len(out), -1)
    stream = stream_of(name, severity, seed)
    normal_noise_batch(flat_out, flat, np.float32(std), of_signal, stream, indices)
    return out

"""C-bar's noise: blue noise samples, brownish noise, single frequencies, sine rings, plasma and Perlin noise.

Each function takes images_u8, uint8 [N, H, W, 3], severity, 1..5, seed and indices, int64 [N]; it returns uint8
[N, H, W, 3]. A level in a table is the source's severity, of 0..10.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft

from fastmagn.corruptions import parameters
from fastmagn.corruptions.sets import cbar_levels
from fastmagn.corruptions.streams import stream_of
from fastmagn_kernels.corruptions.cbar_noise import (
    add_noise_batch,
    mask_batch,
    perlin_batch,
    plasma_batch,
    sine_rings_batch,
    single_frequency_batch,
    spectrum_batch,
)

BLUE_NOISE_LEVEL = cbar_levels((0.7, 1.4, 2.1, 3.5, 4.2), (0.8, 1.6, 2.4, 4.0, 5.6))
BROWNISH_LEVEL = cbar_levels((2.5, 4.0, 5.5, 6.5, 7.0), (1.0, 2.0, 3.0, 4.0, 5.0))
# CIFAR-10-C-bar has none of the others: images of any size get ImageNet-C-bar's levels.
SINGLE_FREQUENCY_LEVEL = (1.0, 1.5, 2.0, 4.5, 5.0)
SINE_RINGS_LEVEL = (3.0, 5.0, 8.0, 9.0, 10.0)
PLASMA_LEVEL = (4.75, 7.0, 8.5, 9.25, 10.0)
PERLIN_LEVEL = (4.6, 5.2, 5.8, 7.6, 8.8)


class Spectrum(NamedTuple):
    """How random phases make the half spectrum of a real image; see the kernel's `fill_spectrum`.

    Args:
        num_words: How many phases there are.
        sources: int64 [H, W // 2 + 1, 2].
        powers: float64 [H, W // 2 + 1, 2].
    """

    num_words: int
    sources: np.ndarray
    powers: np.ndarray


def blue_noise_sample(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Blacken the pixels where blue noise is below a threshold, in standard deviations."""
    out = np.empty_like(images_u8)
    spectrum = blue_spectrum(*images_u8.shape[1:3])
    noise = _noise(images_u8, 1, spectrum, "blue_noise_sample", severity, seed, indices)
    mask_batch(out, images_u8, noise, 0.3 * parameters(BLUE_NOISE_LEVEL, images_u8, severity) - 2.5)
    return out


def brownish_noise(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Add noise whose amplitude falls with the square of its frequency, apart in each channel."""
    out = np.empty_like(images_u8)
    spectrum = brown_spectrum(*images_u8.shape[1:3])
    noise = _noise(images_u8, 3, spectrum, "brownish_noise", severity, seed, indices)
    add_noise_batch(out, images_u8, noise, 6.4 * parameters(BROWNISH_LEVEL, images_u8, severity))
    return out


def single_frequency_greyscale(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Add a plane wave of grey, with any direction and frequency."""
    out = np.empty_like(images_u8)
    stream = stream_of("single_frequency_greyscale", severity, seed)
    single_frequency_batch(out, images_u8, 19.6 * SINGLE_FREQUENCY_LEVEL[severity - 1], stream, indices)
    return out


def cocentric_sine_waves(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Add concentric rings of grey with waves along them."""
    out = np.empty_like(images_u8)
    stream = stream_of("cocentric_sine_waves", severity, seed)
    sine_rings_batch(out, images_u8, 12.8 * SINE_RINGS_LEVEL[severity - 1], stream, indices)
    return out


def plasma_noise(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Mix the image with coloured plasma."""
    out = np.empty_like(images_u8)
    stream = stream_of("plasma_noise", severity, seed)
    plasma_batch(out, images_u8, 6.4 * PLASMA_LEVEL[severity - 1], stream, indices)
    return out


def perlin_noise(images_u8: np.ndarray, severity: int, seed: int, indices: np.ndarray) -> np.ndarray:
    """Mix the image with clouds of Perlin's turbulence."""
    out = np.empty_like(images_u8)
    stream = stream_of("perlin_noise", severity, seed)
    perlin_batch(out, images_u8, 0.05 * PERLIN_LEVEL[severity - 1], stream, indices)
    return out


@lru_cache(maxsize=8)
def blue_spectrum(height_px: int, width_px: int) -> Spectrum:
    """The spectrum of blue noise: the amplitude is the frequency."""
    return _spectrum(height_px, width_px, lambda frequency: frequency)


@lru_cache(maxsize=8)
def brown_spectrum(height_px: int, width_px: int) -> Spectrum:
    """The spectrum of brownish noise."""
    return _spectrum(height_px, width_px, lambda frequency: 1 / (frequency**2 + 1))


def _spectrum(height_px: int, width_px: int, amplitude: Callable[[np.ndarray], np.ndarray]) -> Spectrum:
    """The source's spectrum: its phases are the same at both ends of a line through the middle of the array.

    They fill the left half, row by row, then the upper half of the middle column, if there is one. The array's middle
    is not quite that of the frequencies, so the noise is the real part of a complex image.
    """
    half = width_px // 2
    y, x = np.mgrid[:height_px, :width_px]
    is_mirrored = (x >= width_px - half) | ((x == half) & (x < width_px - half) & (y > (height_px - 1) / 2))
    row, column = np.where(is_mirrored, height_px - 1 - y, y), np.where(is_mirrored, width_px - 1 - x, x)
    source = np.where(column < half, row * half + column, height_px * half + row)
    num_words = height_px * half + (height_px // 2 if width_px % 2 else 0)
    source = np.minimum(source, num_words)  # the middle itself has the phase 0
    side = min(height_px, width_px)
    distance = np.hypot((y - height_px / 2) * (side / height_px), (x - width_px / 2) * (side / width_px))
    power = amplitude(distance)
    ky, kx = np.mgrid[:height_px, : half + 1]
    places = [((sign * ky - height_px // 2) % height_px, (sign * kx - half) % width_px) for sign in (1, -1)]
    return Spectrum(
        num_words,
        np.stack([source[place] for place in places], axis=-1),
        np.stack([power[place] / 2 for place in places], axis=-1),
    )


def _noise(
    images_u8: np.ndarray, channels: int, spectrum: Spectrum, name: str, severity: int, seed: int, indices: np.ndarray
) -> np.ndarray:
    """float64 [N, channels, H, W], of any scale."""
    num_images, height, width, _ = images_u8.shape
    half_spectra = np.empty((num_images, channels, height, width // 2 + 1), np.complex128)
    spectrum_batch(half_spectra, *spectrum, stream_of(name, severity, seed), indices)
    return fft.irfft2(half_spectra, s=(height, width))

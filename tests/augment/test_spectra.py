"""Amplitudes, phases and low frequencies against sums in float64, written out."""

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from fastmagn.augment.spectra import bytes_without_rounding, low_frequencies, with_amplitude_of

SIZES = [(4, 4), (5, 4), (4, 7), (3, 5)]


def images(height: int, width: int, seed: int) -> torch.Tensor:
    return torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(seed))


def transformed(image: np.ndarray, sign: int) -> np.ndarray:
    """The discrete Fourier transform over all axes as a sum over all elements, complex128."""
    places = list(np.ndindex(image.shape))
    out = np.zeros(image.shape, complex)
    for frequency in places:
        for place in places:
            turns = sum(f * p / size for f, p, size in zip(frequency, place, image.shape, strict=True))
            out[frequency] += image[place] * np.exp(sign * 2j * math.pi * turns)
    return out


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_amplitude_is_anothers_and_the_phase_its_own(height, width):
    first, second = images(height, width, 0), images(height, width, 1)
    for i, made in enumerate(with_amplitude_of(first, second).numpy()):
        of_first, of_second = transformed(first[i].numpy(), -1), transformed(second[i].numpy(), -1)
        expected = transformed(abs(of_second) * np.exp(1j * np.angle(of_first)), 1) / of_first.size
        assert abs(expected.imag).max() < 1e-12
        np.testing.assert_allclose(made, expected.real, atol=1e-6)


def test_an_image_with_its_own_amplitude_is_itself():
    image = images(32, 32, 0)
    torch.testing.assert_close(with_amplitude_of(image, image), image, atol=1e-6, rtol=0)


def test_the_phase_of_nothing_is_0():
    """A black image gets the even image that has the other's amplitudes and no phase."""
    other = images(4, 5, 0)
    made = with_amplitude_of(torch.zeros_like(other), other)
    expected = np.fft.ifftn(abs(np.fft.fftn(other.double().numpy(), axes=(1, 2, 3))), axes=(1, 2, 3)).real
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_rounding_errors_have_no_phase():
    """Equal channels have nothing of the frequencies along the channels, but for the errors of float32."""
    grey, other = images(32, 32, 0)[:, :1].repeat(1, 3, 1, 1), images(32, 32, 1)
    grey += (images(32, 32, 2) - 0.5) * 6e-8
    made = with_amplitude_of(grey, other).double().numpy()
    spectrum = np.fft.fftn(images(32, 32, 0)[:, :1].repeat(1, 3, 1, 1).double().numpy(), axes=(1, 2, 3))
    phase = np.where(abs(spectrum) < 1e-9, 0, np.angle(spectrum))
    assert (phase == 0).mean() > 0.6
    amplitude = abs(np.fft.fftn(other.double().numpy(), axes=(1, 2, 3)))
    np.testing.assert_allclose(made, np.fft.ifftn(amplitude * np.exp(1j * phase), axes=(1, 2, 3)).real, atol=1e-5)


@pytest.mark.parametrize(("side", "sigma"), [(3, 0.5), (3, 2.0), (7, 1.5)])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 12)])
def test_low_frequencies_are_a_weighted_sum_over_mirrored_neighbours(side, sigma, height, width):
    image, reach = images(height, width, 0), side // 2
    blurred = low_frequencies(image, side, sigma).double().numpy()
    weights = {
        (y, x): math.exp(-(x * x + y * y) / (2 * sigma**2))
        for y in range(-reach, reach + 1)
        for x in range(-reach, reach + 1)
    }
    total = sum(weights.values())

    def mirrored(place: int, size: int) -> int:
        return -place if place < 0 else 2 * (size - 1) - place if place >= size else place

    for n, c, row, column in np.ndindex(*blurred.shape):
        expected = sum(
            weight * float(image[n, c, mirrored(row + y, height), mirrored(column + x, width)])
            for (y, x), weight in weights.items()
        )
        assert blurred[n, c, row, column] == pytest.approx(expected / total, abs=1e-6)


def test_low_frequencies_are_torchvisions_blur():
    image = images(32, 32, 0).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(low_frequencies(image, 3, 0.5), v2.GaussianBlur(3, 0.5)(image), atol=1e-6, rtol=0)


def test_bytes_are_cut_and_wrap_around():
    values = torch.tensor([0.0, 0.9, 1.2, 254.7, 255.4, 256.2, 300.5, -0.4, -1.2, -20.5], dtype=torch.float64) / 255
    expected = [0, 0, 1, 254, 255, 0, 44, 0, 255, 236]
    assert (bytes_without_rounding(values) * 255).round().tolist() == expected

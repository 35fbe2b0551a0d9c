"""What APR and HybridAugment++ do with the frequencies of images: exchange amplitudes, separate low from high ones.

Sources: G. Chen et al., "Amplitude-phase recombination: Rethinking robustness of convolutional neural networks in
frequency domain", ICCV 2021; M. K. Yucel et al., "HybridAugment++: Unified frequency spectra perturbations for model
robustness", ICCV 2023.

Shape letters: B batch, C H W image.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_AMPLITUDE = 1e-5  # ten times what pixels in [0, 1] have by float32's rounding
_DIMS = (1, 2, 3)  # the transform is over the channels too, as in both papers' code


def with_amplitude_of(images: Tensor, others: Tensor) -> Tensor:
    """The images with the amplitudes of others: inverse transform of |F(others)| exp(i angle(F(images))).

    Images are real, so half of the spectrum is enough. It is computed in float64: the phase of a frequency of which an
    image has little shows float32's errors. Where an image has nothing of a frequency, its phase is 0; in the authors'
    code the phase of rounding errors takes its place.

    Args:
        images: float32 [B, C, H, W].
        others: Likewise, of the same shape.

    Returns:
        float32 [B, C, H, W]; it can leave the range of the images.
    """
    spectrum = torch.fft.rfftn(images.double(), dim=_DIMS)
    power = _power(spectrum)
    silent = power < _LEAST_AMPLITUDE**2
    gain = (_power(torch.fft.rfftn(others.double(), dim=_DIMS)) / power.masked_fill(silent, 1)).sqrt()
    spectrum = torch.where(silent, 1, spectrum)
    return torch.fft.irfftn(spectrum * gain, s=images.shape[1:], dim=_DIMS).float()


def low_frequencies(images: Tensor, side_px: int, sigma_px: float) -> Tensor:
    """The images after a Gaussian blur with mirrored borders; what it removes are the high frequencies.

    Args:
        images: float32 [B, C, H, W], with H and W above side_px // 2.
        side_px: Side of the kernel, odd, px.
        sigma_px: Its standard deviation, px.

    Returns:
        float32 [B, C, H, W].
    """
    reach = side_px // 2
    weights = [math.exp(-((x / sigma_px) ** 2) / 2) for x in range(-reach, reach + 1)]
    weights = [weight / sum(weights) for weight in weights]
    for dim, border in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        size, padded = images.shape[dim], F.pad(images, border, mode="reflect")
        terms = (weight * padded.narrow(dim, k, size) for k, weight in enumerate(weights))
        images = cast(Tensor, sum(terms))
    return images


def bytes_without_rounding(images: Tensor) -> Tensor:
    """Images in [0, 1] as the authors' code stores them: cut to whole 255ths, and wrapped around outside 0..255."""
    return ((images * 255).int() & 255).to(images.dtype) / 255


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square() + spectrum.imag.square()

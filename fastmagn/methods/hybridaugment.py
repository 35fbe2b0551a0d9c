"""HybridAugment++: an image keeps the phase of its low frequencies and is given other high frequencies and amplitudes.

Source: M. K. Yucel et al., "HybridAugment++: Unified frequency spectra perturbations for model robustness", ICCV 2023.
What is said of the authors' code in `apr` is true of theirs too.

Shape letters: B batch, C H W image.
"""

from functools import partial

import torch
from torch import Tensor

from fastmagn.augment.spectra import bytes_without_rounding, low_frequencies, with_amplitude_of
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Layout, Method
from fastmagn.methods.spectra import (
    SINGLE,
    chosen,
    copies,
    happens,
    is_mixed,
    pair_loss,
    prepare,
    recombined_copies,
)


def hybrid_single(images: Tensor, context: StepContext) -> Tensor:
    """HybridAugment++ S: APR-S of the low frequencies of one of two copies, and the high ones of the other.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        context: The step.

    Returns:
        float32 [B, C, H, W] in [0, 1]; where the draws make no second copy, the first.
    """
    spectra, device = context.config.spectra, images.device
    first, second = copies(images, 0, context)
    swapped = happens(context, SINGLE, 1, 0.5, device)
    low_of, high_of = torch.where(swapped, second, first), torch.where(swapped, first, second)
    low = _low(low_of, context)
    low = recombined_copies(bytes_without_rounding(low) if spectra.official else low, 2, context)
    mixed = low + high_of - _low(high_of, context)
    mixed = bytes_without_rounding(mixed) if spectra.official else mixed.clamp(0, 1)
    return torch.where(happens(context, SINGLE, 0, spectra.single_probability, device), mixed, first)


def hybrid_pair(images: Tensor, partners: Tensor, others: Tensor, context: StepContext) -> Tensor:
    """HybridAugment++ P: each image's low frequencies, with its partner's high ones.

    With the same probability once more, the low frequencies get the amplitude of those of a second partner.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        partners: Likewise, of the high frequencies.
        others: Likewise, of the amplitudes.
        context: The step.

    Returns:
        float32 [B, C, H, W]; the image itself where the draws say so.
    """
    device = images.device
    low = _low(images, context)
    recombined = with_amplitude_of(low, _low(others, context))
    low = torch.where(is_mixed(context, 1, device), recombined, low)
    mixed = low + (partners - _low(partners, context))
    mixed = mixed if context.config.spectra.official else mixed.clamp(0, 1)
    return torch.where(is_mixed(context, 0, device), mixed, images)


def _low(images: Tensor, context: StepContext) -> Tensor:
    return low_frequencies(images, context.config.spectra.blur_px, context.config.spectra.blur_sigma_px)


HYBRIDAUGMENT = Method(
    title="HybridAugment++",
    loss=pair_loss,
    prepare=partial(prepare, single=hybrid_single, pair=hybrid_pair),
    forwarded=Layout(augmented=1),
    chosen=chosen,
    uses_partners=True,
)

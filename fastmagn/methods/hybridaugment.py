"""HybridAugment++: an image keeps the phase of its low frequencies and is given other high frequencies and amplitudes.

Source: M. K. Yucel et al., "HybridAugment++: Unified frequency spectra perturbations for model robustness", ICCV 2023.
What is said of the authors' code in `apr` is true of theirs too.

Shape letters: B batch, C H W image.
"""

from functools import partial

from torch import Tensor

from fastmagn.augment.spectra import bytes_without_rounding, low_frequencies, with_amplitude_of
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Layout, Method
from fastmagn.methods.spectra import (
    SPECTRA_FIELDS,
    Partners,
    form,
    mixed_copies,
    mixed_rows,
    pair_loss,
    prepare,
    recombine,
    with_changed,
)


def hybrid_single(images: Tensor, context: StepContext) -> Tensor:
    """HybridAugment++ S: one augmented copy, or APR-S of the low frequencies of one of two, with the other's high ones.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        context: The step.

    Returns:
        float32 [B, C, H, W] in [0, 1].
    """
    official = context.config.spectra.official

    def mix(copies: Tensor, others: Tensor, part: StepContext) -> Tensor:
        low = _low(copies, context)
        low = mixed_copies(bytes_without_rounding(low) if official else low, 2, part, recombine)
        mixed = low + others - _low(others, context)
        return bytes_without_rounding(mixed) if official else mixed.clamp(0, 1)

    return mixed_copies(images, 0, context, mix)


def hybrid_pair(images: Tensor, partners: Partners, context: StepContext) -> Tensor:
    """HybridAugment++ P: each image's low frequencies, with its first partner's high ones.

    With the same probability once more, the low frequencies get the amplitude of those of the second partner.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        partners: The first or the second partners of some of them.
        context: The step.

    Returns:
        float32 [B, C, H, W], in [0, 1] but for spectra.official; the image itself where the draws say so.
    """
    rows = mixed_rows(context, 0)

    def mixed(chosen: Tensor) -> Tensor:
        again = mixed_rows(context.of(context.indices[rows]), 1)
        low = with_changed(
            _low(chosen, context),
            again,
            lambda some: with_amplitude_of(some, _low(partners(1, rows[again]), context)),
        )
        firsts = partners(0, rows)
        hybrid = low + (firsts - _low(firsts, context))
        return hybrid if context.config.spectra.official else hybrid.clamp(0, 1)

    return with_changed(images, rows, mixed)


def _low(images: Tensor, context: StepContext) -> Tensor:
    spectra = context.config.spectra
    return low_frequencies(images, spectra.blur_px, spectra.blur_sigma_px)


HYBRIDAUGMENT = Method(
    title="HybridAugment++",
    loss=pair_loss,
    prepare=partial(prepare, single=hybrid_single, pair=hybrid_pair),
    forwarded=Layout(augmented=1),
    num_partners=2,
    chosen=form(num_partners=2),
    reads=SPECTRA_FIELDS | {"spectra.blur_px", "spectra.blur_sigma_px"},
)

"""Amplitude-phase recombination: an image keeps its phase and is given the amplitude of another.

Source: G. Chen et al., "Amplitude-phase recombination: Rethinking robustness of convolutional neural networks in
frequency domain", ICCV 2021. Their code applies the operations of APR-S before the crop and the flip, here they follow;
and each image has its own draws and its own partner (see `spectra.official`).

Shape letters: B batch, C H W image.
"""

from functools import partial

from torch import Tensor

from fastmagn.augment.spectra import with_amplitude_of
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


def apr_single(images: Tensor, context: StepContext) -> Tensor:
    """APR-S: one augmented copy of each image, or the phase of one of two copies with the amplitude of the other.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        context: The step.

    Returns:
        float32 [B, C, H, W] in [0, 1].
    """
    return mixed_copies(images, 0, context, recombine)


def apr_pair(images: Tensor, partners: Partners, context: StepContext) -> Tensor:
    """APR-P: the phase of each image with the amplitude of its partner.

    Args:
        images: float32 [B, C, H, W] in [0, 1].
        partners: The first partners of some of them.
        context: The step.

    Returns:
        float32 [B, C, H, W], in [0, 1] but for spectra.official; the image itself where the draws say so.
    """
    rows = mixed_rows(context, 0)

    def mixed(chosen: Tensor) -> Tensor:
        recombined = with_amplitude_of(chosen, partners(0, rows))
        return recombined if context.config.spectra.official else recombined.clamp(0, 1)

    return with_changed(images, rows, mixed)


APR = Method(
    title="APR",
    loss=pair_loss,
    prepare=partial(prepare, single=apr_single, pair=apr_pair),
    forwarded=Layout(augmented=1),
    num_partners=1,
    chosen=form(num_partners=1),
    reads=SPECTRA_FIELDS,
)

"""Amplitude-phase recombination: an image keeps its phase and is given the amplitude of another.

Source: G. Chen et al., "Amplitude-phase recombination: Rethinking robustness of convolutional neural networks in
frequency domain", ICCV 2021. Their code applies the operations of APR-S before the crop and the flip, here they follow;
and each image has its own draws and its own partner (see `spectra.official`).

Shape letters: B batch, C H W image.
"""

from functools import partial

import torch
from torch import Tensor

from fastmagn.augment.spectra import with_amplitude_of
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Layout, Method
from fastmagn.methods.spectra import chosen, is_mixed, pair_loss, prepare, recombined_copies


def apr_single(images: Tensor, context: StepContext) -> Tensor:
    """APR-S of images float32 [B, C, H, W] in [0, 1]: likewise."""
    return recombined_copies(images, 0, context)


def apr_pair(images: Tensor, partners: Tensor, _: Tensor, context: StepContext) -> Tensor:
    """APR-P: the phase of each image with the amplitude of its partner, float32 [B, C, H, W], or the image itself."""
    mixed = with_amplitude_of(images, partners)
    mixed = mixed if context.config.spectra.official else mixed.clamp(0, 1)
    return torch.where(is_mixed(context, 0, images.device), mixed, images)


APR = Method(
    title="APR",
    loss=pair_loss,
    prepare=partial(prepare, single=apr_single, pair=apr_pair),
    forwarded=Layout(augmented=1),
    chosen=chosen,
    uses_partners=True,
)

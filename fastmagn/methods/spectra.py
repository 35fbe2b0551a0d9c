"""What apr and hybridaugment share: their draws, augmented copies, partners and loss.

Random streams:

    STREAM_SPECTRA
        slot 0    words: p: whether an image is mixed with its partners; hybridaugment: whether its low frequencies
                  get another amplitude; -, -
        slot 1    words: s: whether two copies are mixed, and which gives what; hybridaugment: the same two for the
                  copies of its low frequencies
        slot 2    words: spectra.official: the sort keys of the partners in the batch, two for each
    STREAM_OPERATIONS
        steps 60, 61, 62, 63 of a policy: AugMix's operations that make the copies

Shape letters: B batch, K classes, C H W image.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import AugMixOperation
from fastmagn.augment.policies.images import apply_policy
from fastmagn.augment.policies.table import Policy
from fastmagn.augment.spectra import bytes_without_rounding, with_amplitude_of
from fastmagn.config.schema import LossConfig
from fastmagn.methods.context import StepContext, on_device
from fastmagn.methods.method import LogitViews, LossParts
from fastmagn_kernels.random.rng import STREAM_SPECTRA

PAIR, SINGLE, OFFICIAL_PARTNERS = range(3)  # the slots
_FIRST_STEP = 60
_CLEAN = ViewSpec(num_augmix_views=0, num_noise_views=0)
_TWO_TO_MINUS_32 = 2.0**-32

Single = Callable[[Tensor, StepContext], Tensor]
Pair = Callable[[Tensor, Tensor, Tensor, StepContext], Tensor]


def prepare(images: Tensor, labels: Tensor, context: StepContext, single: Single, pair: Pair) -> tuple[Tensor, Tensor]:
    """The views of `spectra.variant`: images after `single` (s), and, mixed by `pair` with partners, a second view (p).

    Args:
        images: Clean view, float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.
        single: (images, context) -> images with an augmented copy of themselves.
        pair: (images, partners, other partners, context) -> images mixed with their partners.

    Returns:
        Views float32 [B, C, H, W] or [2*B, C, H, W], channels last, and the labels.
    """
    spectra = context.config.spectra
    changed = single(images, context) if "s" in spectra.variant else images
    if "p" in spectra.variant:
        mixed = pair(changed, *_partners(changed, context, single), context)
        changed = torch.cat((changed, mixed))
    return changed.contiguous(memory_format=torch.channels_last), labels


def pair_loss(logits: LogitViews, targets: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Cross-entropy of the clean view, plus that of the mixed one where there is one."""
    terms = [
        F.cross_entropy(view, targets, label_smoothing=weights.label_smoothing)
        for view in (logits.clean, *logits.augmented)
    ]
    return sum(terms), dict(zip(("cross_entropy", "mixed_cross_entropy"), terms, strict=False))


def happens(context: StepContext, slot: int, word: int, probability: float, device: torch.device) -> Tensor:
    """Whether something of this probability happens to each image: bool [B, 1, 1, 1]."""
    words = context.words(slot, STREAM_SPECTRA)[:, word]
    return on_device(words * _TWO_TO_MINUS_32 < probability, device)[:, None, None, None]


def is_mixed(context: StepContext, word: int, device: torch.device) -> Tensor:
    """Whether `pair` changes each image, bool [B, 1, 1, 1]; with spectra.official the first decides for the batch."""
    spectra = context.config.spectra
    chances = happens(context, PAIR, word, spectra.pair_probability, device)
    return chances[:1].expand_as(chances) if spectra.official else chances


def copies(images: Tensor, number: int, context: StepContext) -> tuple[Tensor, Tensor]:
    """Each image after one of AugMix's operations, and that after a second one, as Pillow has them.

    Args:
        images: float32 [B, C, H, W] in [0, 1], rounded to whole 255ths.
        number: Of the first operation's draws: 0 or 2.
        context: The step.

    Returns:
        Two float32 [B, C, H, W] in whole 255ths.
    """
    first = _operated((images.clamp(0, 1) * 255).round().to(torch.uint8), number, context)
    second = _operated(first, number + 1, context)
    return first.float().div_(255), second.float().div_(255)


def recombined_copies(images: Tensor, number: int, context: StepContext) -> Tensor:
    """APR-S: one augmented copy of each image, or the phase of one of two copies with the amplitude of the other.

    Args:
        images: float32 [B, C, H, W] in [0, 1], rounded to whole 255ths.
        number: Of the first operation's draws, 0 or 2; the words `number` and `number + 1` of slot 1 are drawn too.
        context: The step.

    Returns:
        float32 [B, C, H, W] in [0, 1].
    """
    spectra, device = context.config.spectra, images.device
    first, second = copies(images, number, context)
    swapped = happens(context, SINGLE, number + 1, 0.5, device)
    phase_of, amplitude_of = torch.where(swapped, second, first), torch.where(swapped, first, second)
    if spectra.official:  # bytes without rounding show float32's errors
        mixed = bytes_without_rounding(with_amplitude_of(phase_of.double(), amplitude_of.double())).float()
    else:
        mixed = with_amplitude_of(phase_of, amplitude_of).clamp(0, 1)
    return torch.where(happens(context, SINGLE, number, spectra.single_probability, device), mixed, first)


def _operated(images_u8: Tensor, number: int, context: StepContext) -> Tensor:
    """The images uint8 [B, C, H, W] after operation `number` that is drawn for them."""
    augment = context.config.augment
    operation = AugMixOperation(_FIRST_STEP + number, augment.aug_severity, augment.all_operations)
    seed, size = context.config.train.seed, (images_u8.shape[2], images_u8.shape[3])
    params = sample_view_params(seed, context.epoch, context.indices, _CLEAN, augment, size)
    backend = "pil" if augment.backend == "pil" else "auto"
    return apply_policy(images_u8, params, Policy(operation, bilinear=True), backend)

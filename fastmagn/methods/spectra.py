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

The draws are on the host, so only the images that they change are computed.

Shape letters: B batch, R images that change, C H W image.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import AugMixOperation
from fastmagn.augment.policies.images import apply_policy
from fastmagn.augment.policies.table import Policy
from fastmagn.augment.spectra import bytes_without_rounding, with_amplitude_of
from fastmagn.config.schema import Config, LossConfig
from fastmagn.methods.context import StepContext, on_device, random_order
from fastmagn.methods.method import Layout, LogitViews, LossParts
from fastmagn_kernels.random.rng import STREAM_SPECTRA

PAIR, SINGLE, OFFICIAL_PARTNERS = range(3)  # the slots
_FIRST_STEP = 60
_CLEAN = ViewSpec(num_augmix_views=0, num_noise_views=0)
_TWO_TO_MINUS_32 = 2.0**-32
SPECTRA_FIELDS = frozenset(
    f"spectra.{name}" for name in ("variant", "pair_probability", "single_probability", "official")
) | {
    "augment.aug_severity",
    "augment.all_operations",
}

Single = Callable[[Tensor, StepContext], Tensor]
# (k, rows int64 [R]) -> the k-th partners of these images of the batch, float32 [R, C, H, W].
Partners = Callable[[int, np.ndarray], Tensor]
Pair = Callable[[Tensor, Partners, StepContext], Tensor]


def prepare(images: Tensor, labels: Tensor, context: StepContext, single: Single, pair: Pair) -> tuple[Tensor, Tensor]:
    """The views of `spectra.variant`: images after `single` (s), and, mixed by `pair` with partners, a second view (p).

    Args:
        images: Clean view, float32 [B, C, H, W] in [0, 1].
        labels: int64 [B].
        context: The step.
        single: (images, context) -> images with augmented copies of themselves.
        pair: (images, partners, context) -> images mixed with their partners.

    Returns:
        Views float32 [B, C, H, W] or [2*B, C, H, W], channels last, and the labels.
    """
    spectra, images = context.config.spectra, images.contiguous()  # planes pad and transform faster
    changed = single(images, context) if "s" in spectra.variant else images

    def partners(k: int, rows: np.ndarray) -> Tensor:
        if spectra.official:
            keys = context.words(OFFICIAL_PARTNERS, STREAM_SPECTRA)[:, 2 * k : 2 * k + 2]
            return changed[on_device(random_order(keys)[rows], images.device)]
        assert context.partners is not None
        assert context.partner_indices is not None
        places = k * len(labels) + rows
        chosen = context.partners[on_device(places, images.device)].contiguous()
        return single(chosen, context.of(context.partner_indices[places])) if "s" in spectra.variant else chosen

    if "p" in spectra.variant:
        changed = torch.cat((changed, pair(changed, partners, context)))
    return changed.contiguous(memory_format=torch.channels_last), labels


def pair_loss(logits: LogitViews, targets: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Cross-entropy of the clean view, plus that of the mixed one where there is one."""
    names, views = ("cross_entropy", "mixed_cross_entropy"), (logits.clean, *logits.augmented)
    terms = [F.cross_entropy(view, targets, label_smoothing=weights.label_smoothing) for view in views]
    return cast(Tensor, sum(terms)), dict(zip(names, terms, strict=False))


def form(num_partners: int) -> Callable[[Config], dict[str, Any]]:
    """What the configuration decides of a method with partners: s forwards one view; partners can be in the batch."""

    def chosen(config: Config) -> dict[str, Any]:
        has_pair, official = "p" in config.spectra.variant, config.spectra.official
        return {
            "forwarded": Layout(augmented=int(has_pair)),
            "num_partners": num_partners if has_pair and not official else 0,
        }

    return chosen


def happens(context: StepContext, slot: int, word: int, probability: float) -> np.ndarray:
    """Whether something of this probability happens to each image: bool [B]."""
    return context.words(slot, STREAM_SPECTRA)[:, word] * _TWO_TO_MINUS_32 < probability


def mixed_rows(context: StepContext, word: int) -> np.ndarray:
    """The images that a pair changes, int64 [R]; with spectra.official, all or none, as the first one draws."""
    mixed = happens(context, PAIR, word, context.config.spectra.pair_probability)
    return np.flatnonzero(np.full_like(mixed, mixed[0]) if context.config.spectra.official else mixed)


def with_changed(images: Tensor, rows: np.ndarray, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images [B, C, H, W], of which those at `rows`, int64 [R], are changed: [R, C, H, W] -> [R, C, H, W]."""
    if rows.size == 0:
        return images
    places = on_device(rows, images.device)
    return images.index_copy(0, places, change(images[places]))


def choose(first: Tensor, second: Tensor, swapped: np.ndarray) -> tuple[Tensor, Tensor]:
    """Both [B, C, H, W], with those images exchanged for which `swapped`, bool [B], is true."""
    is_swapped = on_device(swapped, first.device)[:, None, None, None]
    return torch.where(is_swapped, second, first), torch.where(is_swapped, first, second)


def mixed_copies(
    images: Tensor, number: int, context: StepContext, mix: Callable[[Tensor, Tensor, StepContext], Tensor]
) -> Tensor:
    """Each image after one of AugMix's operations; with spectra.single_probability, mixed with a copy of that.

    The copy has had a second operation. A fair coin decides which of the two `mix` is given first.

    Args:
        images: float32 [B, C, H, W] in [0, 1], rounded to whole 255ths.
        number: Of the first operation: 0 or 2; the words `number` and `number + 1` of slot 1 are drawn too.
        context: The step.
        mix: (copies, other copies, their context) -> mixed, all float32 [R, C, H, W] in [0, 1].

    Returns:
        float32 [B, C, H, W].
    """
    first = _operated((images.clamp(0, 1) * 255).round().to(torch.uint8), number, context)
    rows = np.flatnonzero(happens(context, SINGLE, number, context.config.spectra.single_probability))
    part = context.of(context.indices[rows])

    def mixed(copies: Tensor) -> Tensor:
        second = _operated(first[on_device(rows, images.device)], number + 1, part).float().div_(255)
        return mix(*choose(copies, second, happens(part, SINGLE, number + 1, 0.5)), part)

    return with_changed(first.float().div_(255), rows, mixed)


def recombine(copies: Tensor, others: Tensor, context: StepContext) -> Tensor:
    """APR of copies [R, C, H, W] in [0, 1]: their phase with the others' amplitude, in [0, 1]."""
    mixed = with_amplitude_of(copies, others)
    return bytes_without_rounding(mixed) if context.config.spectra.official else mixed.clamp(0, 1)


def _operated(images_u8: Tensor, number: int, context: StepContext) -> Tensor:
    """The images uint8 [B, C, H, W] after operation `number` that is drawn for them."""
    augment = context.config.augment
    operation = AugMixOperation(_FIRST_STEP + number, augment.aug_severity, augment.all_operations)
    seed, size = context.config.train.seed, (images_u8.shape[2], images_u8.shape[3])
    params = sample_view_params(seed, context.epoch, context.indices, _CLEAN, augment, size)
    backend = "pil" if augment.backend == "pil" else "auto"
    return apply_policy(images_u8, params, Policy(operation, bilinear=True), backend)

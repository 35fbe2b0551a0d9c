"""Methods, by name: which views a method needs, and its loss. One place for the rows of the paper's tables."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from fastmagn.augment.params import ViewSpec
from fastmagn.config import AugmentConfig, LossConfig
from fastmagn.losses import jensen_shannon, magn_consistency
from fastmagn.registry import resolve

METHODS = {
    "standard": "fastmagn.methods:STANDARD",
    "augmix": "fastmagn.methods:AUGMIX",
    "magn": "fastmagn.methods:MAGN",
    "magn_augmix": "fastmagn.methods:MAGN_AUGMIX",
}


class LogitViews(NamedTuple):
    """The logits of a fused forward pass by the view they belong to, each [B, K], float32."""

    clean: Tensor
    augmix: tuple[Tensor, ...]
    noisy: tuple[Tensor, ...]


LossParts = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the paper.

    Args:
        num_augmix_views: AugMix views of each image.
        uses_noise: Whether there are noisy views, `augment.num_noise_samples` of them.
        loss: (logits, labels int64 [B], weights) -> (scalar to minimise, its parts before weighting, for the log).
    """

    num_augmix_views: int
    uses_noise: bool
    loss: Callable[[LogitViews, Tensor, LossConfig], tuple[Tensor, LossParts]]

    def view_spec(self, augment: AugmentConfig) -> ViewSpec:
        """The views that a batch must hold for this method."""
        num_noise_views = augment.num_noise_samples if self.uses_noise else 0
        return ViewSpec(num_augmix_views=self.num_augmix_views, num_noise_views=num_noise_views)

    def split(self, logits: Tensor, spec: ViewSpec) -> LogitViews:
        """Fused logits [V*B, K] in the order clean | AugMix | noise, apart."""
        clean, *others = logits.float().chunk(spec.num_views)
        return LogitViews(clean, tuple(others[: spec.num_augmix_views]), tuple(others[spec.num_augmix_views :]))


def get_method(name: str) -> Method:
    """The method registered as `name`; an InputError that names `method` otherwise."""
    return resolve(METHODS, name, "method")


def standard_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (1): cross-entropy of the clean view."""
    cross_entropy = F.cross_entropy(logits.clean, labels)
    return cross_entropy, {"cross_entropy": cross_entropy}


def augmix_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (5): cross-entropy + lambda_2 JS(clean; AugMix; AugMix)."""
    loss, parts = standard_loss(logits, labels, weights)
    divergence = jensen_shannon(logits.clean, *logits.augmix)
    return loss + weights.jsd_weight * divergence, parts | {"jensen_shannon": divergence}


def magn_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (6) with lambda_2 = 0: cross-entropy + lambda_1 p_y KL(clean || noisy)."""
    loss, parts = standard_loss(logits, labels, weights)
    consistency = _consistency(logits, labels, weights)
    return loss + weights.consistency_weight * consistency, parts | {"consistency": consistency}


def magn_augmix_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (6): cross-entropy + lambda_1 p_y KL(clean || noisy) + lambda_2 JS(clean; AugMix; AugMix)."""
    loss, parts = augmix_loss(logits, labels, weights)
    consistency = _consistency(logits, labels, weights)
    return loss + weights.consistency_weight * consistency, parts | {"consistency": consistency}


def _consistency(logits: LogitViews, labels: Tensor, weights: LossConfig) -> Tensor:
    return magn_consistency(
        logits.clean,
        logits.noisy,
        labels,
        detach_weight=weights.detach_weight,
        detach_target=weights.detach_target,
    )


STANDARD = Method(num_augmix_views=0, uses_noise=False, loss=standard_loss)
AUGMIX = Method(num_augmix_views=2, uses_noise=False, loss=augmix_loss)
MAGN = Method(num_augmix_views=0, uses_noise=True, loss=magn_loss)
MAGN_AUGMIX = Method(num_augmix_views=2, uses_noise=True, loss=magn_augmix_loss)

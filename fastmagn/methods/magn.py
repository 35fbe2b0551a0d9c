"""MAGN, alone and added to others: the clean view and noisy views agree, most where the model is right. Equation (6).

Source: A. Tsiligkaridis and T. Tsiligkaridis, "Misclassification-aware Gaussian smoothing improves robustness against
domain shifts".
"""

import dataclasses

import torch
from torch import Tensor

from fastmagn.config.schema import LossConfig
from fastmagn.losses import magn_consistency
from fastmagn.methods.augmix import augmix_loss
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Layout, LogitViews, LossParts, Method, Prepare
from fastmagn.methods.standard import standard_loss

CONSISTENCY_FIELDS = frozenset({"loss.consistency_weight", "loss.detach_weight", "loss.detach_target"})


def magn_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (6) with lambda_2 = 0: cross-entropy + lambda_1 p_y KL(clean || noisy), averaged over noisy views."""
    loss, parts = standard_loss(logits, labels, weights)
    consistency = _consistency(logits, labels, weights)
    return loss + weights.consistency_weight * consistency, parts | {"consistency": consistency}


def magn_augmix_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (6): cross-entropy + lambda_1 p_y KL(clean || noisy) + lambda_2 JS(clean; AugMix; AugMix)."""
    loss, parts = augmix_loss(logits, labels, weights)
    consistency = _consistency(logits, labels, weights)
    return loss + weights.consistency_weight * consistency, parts | {"consistency": consistency}


def with_magn(method: Method) -> Method:
    """The method `NAME+magn`: `method` and lambda_1 p_y KL(x || x + delta) of its first view x, which has clean logits.

    delta is the noise of the sample's noisy views, the same as in `magn`, also where `method` changes the first view.
    """

    def loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
        own_loss, parts = method.checked_loss(logits, labels, weights)
        consistency = _consistency(logits, labels, weights)
        return own_loss + weights.consistency_weight * consistency, parts | {"consistency": consistency}

    return dataclasses.replace(
        method,
        title=f"{method.title}+MAGN",
        view_title=method.view_title or method.title,
        loss=loss,
        uses_noise=True,
        prepare=method.prepare and _beside_noisy_views(method, method.prepare),
        # What `prepare` changes is added to noisy views, which have no patch: its difference would undo one.
        drops_clean=method.drops_clean or method.prepare is not None,
        reads=method.reads | CONSISTENCY_FIELDS,
    )


def _beside_noisy_views(method: Method, own_prepare: Prepare) -> Prepare:
    """The method's `prepare`, for views that end with noisy ones: their noise is added to the first view it returns."""
    layout = method.forwarded or Layout(augmix=method.num_augmix_views)

    def prepare(views: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, ...]:
        batch = len(labels)
        num_own, before_noise = (1 + method.num_augmix_views) * batch, (layout.clean + layout.augmix) * batch
        own, noisy = views[:num_own], views[num_own:]
        prepared, *others = own_prepare(own, labels, context)
        change = prepared[:batch] - own[:batch]
        noisy = noisy + change.repeat(len(noisy) // batch, 1, 1, 1)
        # Without an empty part, of which torch.cat would take the memory format.
        parts = [part for part in (prepared[:before_noise], noisy, prepared[before_noise:]) if len(part)]
        return torch.cat(parts), *others

    return prepare


def _consistency(logits: LogitViews, labels: Tensor, weights: LossConfig) -> Tensor:
    return magn_consistency(
        logits.clean,
        logits.noisy,
        labels,
        detach_weight=weights.detach_weight,
        detach_target=weights.detach_target,
    )


MAGN = Method(title="MAGN", loss=magn_loss, uses_noise=True, reads=CONSISTENCY_FIELDS)
MAGN_AUGMIX = Method(
    title="MAGN+AugMix",
    loss=magn_augmix_loss,
    num_augmix_views=2,
    uses_noise=True,
    reads=CONSISTENCY_FIELDS | {"loss.jsd_weight"},
)

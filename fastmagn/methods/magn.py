"""MAGN, alone and with AugMix: the clean view and noisy views agree, most where the model is wrong. Equation (6).

Source: A. Tsiligkaridis and T. Tsiligkaridis, "Misclassification-aware Gaussian smoothing improves robustness against
domain shifts".
"""

from torch import Tensor

from fastmagn.config.schema import LossConfig
from fastmagn.losses import magn_consistency
from fastmagn.methods.augmix import augmix_loss
from fastmagn.methods.method import LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss


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


def _consistency(logits: LogitViews, labels: Tensor, weights: LossConfig) -> Tensor:
    return magn_consistency(
        logits.clean,
        logits.noisy,
        labels,
        detach_weight=weights.detach_weight,
        detach_target=weights.detach_target,
    )


MAGN = Method(title="MAGN", loss=magn_loss, uses_noise=True)
MAGN_AUGMIX = Method(title="MAGN+AugMix", loss=magn_augmix_loss, num_augmix_views=2, uses_noise=True)

"""AugMix: the clean view and two AugMix views agree. The paper's equation (5).

Source: D. Hendrycks et al., "AugMix: A simple data processing method to improve robustness and uncertainty", ICLR 2020.
"""

from torch import Tensor

from fastmagn.config.schema import LossConfig
from fastmagn.losses import jensen_shannon
from fastmagn.methods.method import LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss


def augmix_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (5): cross-entropy + lambda_2 JS(clean; AugMix; AugMix)."""
    loss, parts = standard_loss(logits, labels, weights)
    divergence = jensen_shannon(logits.clean, *logits.augmix)
    return loss + weights.jsd_weight * divergence, parts | {"jensen_shannon": divergence}


AUGMIX = Method(title="AugMix", loss=augmix_loss, num_augmix_views=2)

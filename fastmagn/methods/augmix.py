"""AugMix: the clean view and two AugMix views agree, the paper's equation (5); or one AugMix view and no divergence.

Source: D. Hendrycks et al., "AugMix: A simple data processing method to improve robustness and uncertainty", ICLR 2020.
"""

from torch import Tensor

from fastmagn.config.schema import LossConfig
from fastmagn.losses import jensen_shannon
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Layout, LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss


def augmix_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (5): cross-entropy + lambda_2 JS(clean; AugMix; AugMix)."""
    loss, parts = standard_loss(logits, labels, weights)
    divergence = jensen_shannon(logits.clean, *logits.augmix)
    return loss + weights.jsd_weight * divergence, parts | {"jensen_shannon": divergence}


def keep_augmix_view(views: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """The AugMix view, float32 [B, C, H, W], of the clean and the AugMix views, [2B, C, H, W]; and the labels."""
    return views[len(labels) :], labels


AUGMIX = Method(title="AugMix", loss=augmix_loss, num_augmix_views=2, reads=frozenset({"loss.jsd_weight"}))
AUGMIX_NO_JSD = Method(
    title="AugMix (no JSD)",
    loss=standard_loss,
    num_augmix_views=1,
    prepare=keep_augmix_view,
    forwarded=Layout(),
    drops_clean=True,
)

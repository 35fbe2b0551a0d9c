"""DiGN: the clean view and two noisy views agree, with the same weight for every image."""

from torch import Tensor

from fastmagn.config.schema import LossConfig
from fastmagn.losses import jensen_shannon
from fastmagn.methods.method import LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss


def dign_loss(logits: LogitViews, labels: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Cross-entropy + lambda_1 JS(clean; noisy; noisy), without MAGN's weight by confidence.

    Source: T. Tsiligkaridis and A. Tsiligkaridis, "Diverse Gaussian noise consistency regularization for robustness and
    uncertainty calibration", IJCNN 2023. Their code (github.com/TheoT1/DiGN) has the divergence in this form, of two
    draws, and as an averaged KL. Its command for CIFAR-10 takes the KL of three draws with weight 0.2, sigma up to 1.2
    on a random fifth of the values; it gives no weight for this form, so lambda_1 stays at 3, the code's default.
    """
    loss, parts = standard_loss(logits, labels, weights)
    divergence = jensen_shannon(logits.clean, *logits.noisy)
    return loss + weights.consistency_weight * divergence, parts | {"jensen_shannon": divergence}


DIGN = Method(title="DIGN", loss=dign_loss, uses_noise=True, reads=frozenset({"loss.consistency_weight"}))

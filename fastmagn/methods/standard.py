"""Standard training: cross-entropy of the clean view. The paper's equation (1)."""

import torch.nn.functional as F
from torch import Tensor

from fastmagn.config.schema import LossConfig
from fastmagn.methods.method import LogitViews, LossParts, Method


def standard_loss(logits: LogitViews, targets: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Equation (1): cross-entropy of the clean view, however it was augmented or mixed."""
    cross_entropy = F.cross_entropy(logits.clean, targets, label_smoothing=weights.label_smoothing)
    return cross_entropy, {"cross_entropy": cross_entropy}


STANDARD = Method(title="Standard", loss=standard_loss)

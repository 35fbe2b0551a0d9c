"""What the measures need of each prediction, computed from logits in float64.

Shape letters: M images, K classes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Predictions(NamedTuple):
    """Four numbers of each prediction, arrays [M]; those of a corruption are [5, M].

    Logits that are NaN or infinite give NaN, but for -inf, which rules a class out.

    Args:
        confidences: Largest class probability, float64 in [0, 1].
        correct: Whether that class is the label, bool.
        nll: Negative log-likelihood -log p_y, float64, nats.
        brier: Brier score sum_k (p_k - [k = y])^2, float64 in [0, 2].
    """

    confidences: np.ndarray
    correct: np.ndarray
    nll: np.ndarray
    brier: np.ndarray


def measure_logits(logits: Tensor, labels: Tensor) -> Predictions:
    """Measure each prediction, in float64.

    Args:
        logits: [M, K], any float dtype and device.
        labels: int64 [M], on the same device.

    Source of the Brier score: G. W. Brier, 1950, the sum over classes, not its mean.
    """
    log_probs = torch.log_softmax(logits.double(), dim=1)
    probs = log_probs.exp()
    confidences, predicted = probs.max(dim=1)
    true_class = labels[:, None]
    probs_of_label = probs.gather(1, true_class).squeeze(1)
    brier = probs.square().sum(dim=1) - 2 * probs_of_label + 1
    return Predictions(
        confidences.clamp(max=1).cpu().numpy(),
        (predicted == labels).cpu().numpy(),
        -log_probs.gather(1, true_class).squeeze(1).cpu().numpy(),
        brier.clamp(min=0).cpu().numpy(),
    )


def stack(parts: list[Predictions]) -> Predictions:
    """The predictions of several severities as one, arrays [len(parts), M]."""
    return Predictions(*map(np.stack, zip(*parts, strict=True)))


def concatenate(parts: list[Predictions]) -> Predictions:
    """The predictions of several groups as one flat group."""
    return Predictions(
        *(np.concatenate([np.ravel(entry) for entry in entries]) for entries in zip(*parts, strict=True))
    )

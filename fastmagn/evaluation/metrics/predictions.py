"""What the measures need of each prediction, computed from logits in float64.

Shape letters: M images, K classes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastmagn.errors import check

_VALUES_AT_ONCE = 1 << 20  # 8 MiB in float64


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


def measure_logits(logits: Tensor, labels: Tensor, temperature: float | None = None) -> Predictions:
    """Measure each prediction, in float64.

    Args:
        logits: [M, K], any float dtype and device.
        labels: int64 [M], on the same device.
        temperature: What the logits are divided by first, in their dtype; None divides nothing.

    Raises:
        InputError: A label is not one of the K classes.

    Source of the Brier score: G. W. Brier, 1950, the sum over classes, not its mean.
    """
    check_labels(labels, logits.shape[1])
    parts = row_parts(logits)
    measured = [
        _measure_part(part if temperature is None else part / temperature, part_labels)
        for part, part_labels in zip(parts, labels.split([len(part) for part in parts]), strict=True)
    ]
    return Predictions(*(torch.cat(values).cpu().numpy() for values in zip(*measured, strict=True)))


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise InputError unless the labels, int64 [M], are in 0..num_classes - 1."""
    if len(labels):
        low, high = (int(bound) for bound in torch.aminmax(labels))
        check(0 <= low <= high < num_classes, "labels", f"{low}..{high}", f"0..{num_classes - 1}, the model's classes")


def row_parts(logits: Tensor) -> tuple[Tensor, ...]:
    """Logits [M, K] in parts of some rows, 1,000 of 1,000 classes, so that float64 copies take little memory."""
    return logits.split(max(1, _VALUES_AT_ONCE // max(1, logits.shape[1])))


def _measure_part(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fields of `Predictions` as tensors [M]."""
    true_class = labels[:, None]
    log_probs = torch.log_softmax(logits.double(), dim=1)
    nll = -log_probs.gather(1, true_class).squeeze(1)
    probs = log_probs.exp_()
    confidences, predicted = probs.max(dim=1)
    probs_of_label = probs.gather(1, true_class).squeeze(1)
    brier = probs.square_().sum(dim=1) - 2 * probs_of_label + 1
    return confidences.clamp(max=1), predicted == labels, nll, brier.clamp(min=0)


def not_finite(predictions: Predictions) -> np.ndarray:
    """Which predictions come from logits that are NaN or infinite, bool of their shape."""
    return np.isnan(predictions.confidences)


def stack(parts: list[Predictions]) -> Predictions:
    """The predictions of several severities as one, arrays [len(parts), M]."""
    return Predictions(*map(np.stack, zip(*parts, strict=True)))


def concatenate(parts: list[Predictions]) -> Predictions:
    """The predictions of several groups as one flat group."""
    return Predictions(
        *(np.concatenate([np.ravel(entry) for entry in entries]) for entries in zip(*parts, strict=True))
    )

"""Temperature scaling: one number that all logits are divided by. Shape letters: M images, K classes."""

import torch
from torch import Tensor

from fastmagn.evaluation.metrics.predictions import check_labels, row_parts

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in 0.01..100 that minimises the mean negative log-likelihood of softmax(logits / T), in float64.

    The likelihood is convex in 1 / T, so that its slope, sum_k p_k z_k - z_y on average, changes its sign once. Where
    every image is classified correctly by a margin, a lower T is always better; then T is 0.01.

    Args:
        logits: z, [M, K] without NaN or +inf, M at least 1, any float dtype and device.
        labels: y, int64 [M], on the same device.

    Raises:
        InputError: A label is not one of the K classes.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2.
    """
    check_labels(labels, logits.shape[1])
    of_label = logits.gather(1, labels[:, None]).double().mean()
    parts = row_parts(logits)

    def slope(inverse: float) -> float:
        expected = torch.cat([_expected_logits(part.double(), inverse) for part in parts])
        return float(expected.mean() - of_label)

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(low) >= 0:
        return MAX_TEMPERATURE
    if slope(high) <= 0:
        return MIN_TEMPERATURE
    from scipy.optimize import brentq  # here, as few evaluations fit a temperature

    return 1 / float(brentq(slope, low, high, xtol=1e-12))


def _expected_logits(logits: Tensor, inverse: float) -> Tensor:
    """sum_k p_k z_k of each image, with p = softmax(z inverse): float64 [M]."""
    probs = torch.softmax(logits * inverse, dim=1)
    return torch.where(probs > 0, probs * logits, 0).sum(dim=1)  # -inf rules a class out

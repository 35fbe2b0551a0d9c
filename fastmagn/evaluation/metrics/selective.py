"""Selective prediction: the model may abstain on the images of which it is least confident."""

import math
from typing import NamedTuple

import numpy as np

from fastmagn.evaluation.metrics.calibration import checked_predictions, in_order_of_confidence

COVERAGE = 0.8


class SelectiveRisk(NamedTuple):
    """How many errors are left among the most confident predictions, fractions in 0..1; lower is better.

    Args:
        aurc: The area under the risk-coverage curve: the mean over k = 1..n of the share of errors among the k most
            confident predictions.
        risk_at_80_coverage: That share for k = ceil(0.8 n).
    """

    aurc: float
    risk_at_80_coverage: float


def selective_risk(confidences: np.ndarray, correct: np.ndarray) -> SelectiveRisk:
    """The area under the risk-coverage curve, and the risk at 80 % coverage.

    Predictions of equal confidence share their accuracy, which is the mean over all orders that they could be taken in.
    So the result does not depend on the order of the input.

    Args:
        confidences: [n], the largest class probability of each prediction, 0..1.
        correct: [n], bool, or a share in 0..1: whether that class is the label.

    Raises:
        InputError: There are no predictions; the lengths differ; a value is outside 0..1 or not a number.

    Source: Y. Geifman, G. Uziel and R. El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers",
    ICLR 2019, equation 2. Some code takes trapezoids between the k / n; they differ from this mean by less than 1 / n.
    """
    _, correct = in_order_of_confidence(*checked_predictions(confidences, correct, "selective prediction"))
    counts = np.arange(1, len(correct) + 1)
    risks = np.cumsum(1 - correct[::-1]) / counts
    num_kept = math.ceil(COVERAGE * len(correct) - 1e-9)  # 0.8 is a little more than four fifths
    return SelectiveRisk(float(risks.mean()), float(risks[num_kept - 1]))

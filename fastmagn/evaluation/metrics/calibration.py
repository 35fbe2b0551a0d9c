"""Calibration errors of confidences, in float64 on the host.

Not torchmetrics': its bins are those of `width`, but it opens one more for confidences of exactly 1, which a float32
softmax gives often, and sums in the precision of its input.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from fastmagn.errors import check

Binning = Literal["width", "adaptive"]
Pooling = Literal["pooled", "per_corruption"]


class Bins(NamedTuple):
    """Predictions by confidence, float64 [n_B] each: how many, how many of them right, the sum of their confidences."""

    counts: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray

    @property
    def gaps(self) -> np.ndarray:
        """|accuracy - mean confidence| of each bin times its count; 0 where it is empty."""
        return np.abs(self.correct - self.confidence)


def bin_predictions(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15, binning: Binning = "width"
) -> Bins:
    """Share n predictions out over n_B bins of rising confidence.

    `width`: bin i holds the confidences in [i / n_B, (i + 1) / n_B), and the last bin holds 1 too. `adaptive`: the
    predictions in order of confidence are cut into n_B bins whose counts differ by at most one, the larger ones first;
    predictions of one confidence share their accuracy, so the result does not depend on the order they came in.

    Args:
        confidences: [n], the largest class probability of each prediction, 0..1.
        correct: bool [n], whether that class is the label.
        num_bins: n_B, 1 or more.
        binning: width or adaptive.

    Raises:
        InputError: No predictions, lengths that differ, a confidence outside 0..1 or not a number, an unknown option.
    """
    confidences = np.asarray(confidences, dtype=np.float64).reshape(-1)
    correct = np.asarray(correct).reshape(-1).astype(np.float64)
    check(len(confidences) > 0, "calibration error", "no predictions", "at least one")
    check(len(correct) == len(confidences), "calibration error", f"{len(correct)} outcomes", f"{len(confidences)}")
    in_range = bool(np.all((confidences >= 0) & (confidences <= 1)))
    span = f"confidences {confidences.min()}..{confidences.max()}"
    check(in_range, "calibration error", span, "0..1")
    check(num_bins >= 1, "eval.num_bins", num_bins, "1 or more")
    check(binning in ("width", "adaptive"), "eval.binning", binning, "width or adaptive")
    if binning == "width":
        lower_edges = np.arange(num_bins) / num_bins
        bins = np.searchsorted(lower_edges, confidences, side="right") - 1
    else:
        confidences, correct = _in_order_of_confidence(confidences, correct)
        sizes = [len(part) for part in np.array_split(confidences, num_bins)]
        bins = np.repeat(np.arange(num_bins), sizes)
    counts = np.bincount(bins, minlength=num_bins).astype(np.float64)
    return Bins(counts, np.bincount(bins, correct, num_bins), np.bincount(bins, confidences, num_bins))


def _in_order_of_confidence(confidences: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sorted by confidence; predictions of one confidence all get their mean correctness."""
    values, which, counts = np.unique(confidences, return_inverse=True, return_counts=True)
    accuracy = np.bincount(which, correct) / counts
    return np.repeat(values, counts), np.repeat(accuracy, counts)


def rms_calibration_error(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """E_c = sqrt(sum_i |B_i| / n (accuracy of B_i - mean confidence of B_i)^2), a fraction in 0..1; empty bins add 0.

    Arguments and errors are those of `bin_predictions`.

    Source: the paper, section 4 (E_c), which leaves n_B and the bins open. `adaptive` is Nguyen and O'Connor, EMNLP
    2015; AugMix's code, after Hendrycks, Mazeika and Dietterich, ICLR 2019, fixes 100 predictions a bin where this
    fixes the number of bins.
    """
    bins = bin_predictions(confidences, correct, num_bins, binning)
    filled = bins.counts > 0
    return float(np.sqrt(np.sum(bins.gaps[filled] ** 2 / bins.counts[filled]) / bins.counts.sum()))


def expected_calibration_error(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """ECE = sum_i |B_i| / n |accuracy of B_i - mean confidence of B_i|, a fraction in 0..1.

    Arguments and errors are those of `bin_predictions`.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3.
    """
    bins = bin_predictions(confidences, correct, num_bins, binning)
    return float(bins.gaps.sum() / bins.counts.sum())


def reliability_diagram(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15, binning: Binning = "width"
) -> dict[str, list[float | None]]:
    """What a reliability diagram shows: for each bin its `count`, `accuracy` and mean `confidence`, None if empty.

    Arguments and errors are those of `bin_predictions`.
    """
    bins = bin_predictions(confidences, correct, num_bins, binning)

    def means(sums: np.ndarray) -> list[float | None]:
        return [float(total / count) if count else None for total, count in zip(sums, bins.counts, strict=True)]

    return {
        "count": [int(count) for count in bins.counts],
        "accuracy": means(bins.correct),
        "confidence": means(bins.confidence),
    }


def corrupt_rms_calibration_error(
    confidences: Mapping[str, np.ndarray],
    correct: Mapping[str, np.ndarray],
    num_bins: int = 15,
    binning: Binning = "width",
    pooling: Pooling = "pooled",
) -> float:
    """The RMS calibration error under corruption, a fraction in 0..1.

    `pooled` bins all predictions together; `per_corruption` is the mean over corruptions of the error of each one's
    five severities together.

    Args:
        confidences: corruption -> [5, N], 0..1.
        correct: corruption -> bool [5, N], the same corruptions.
        num_bins: As of `rms_calibration_error`.
        binning: As of `rms_calibration_error`.
        pooling: pooled or per_corruption.

    Raises:
        InputError: No corruption, corruptions that differ, an unknown pooling, or as `rms_calibration_error`.
    """
    check(len(confidences) > 0, "calibration error", "no corruptions", "at least one")
    check(set(confidences) == set(correct), "calibration error", sorted(correct), f"outcomes of {sorted(confidences)}")
    check(pooling in ("pooled", "per_corruption"), "eval.pooling", pooling, "pooled or per_corruption")
    if pooling == "pooled":
        all_confidences = np.concatenate([np.ravel(confidences[name]) for name in confidences])
        all_correct = np.concatenate([np.ravel(correct[name]) for name in confidences])
        return rms_calibration_error(all_confidences, all_correct, num_bins, binning)
    errors = [rms_calibration_error(confidences[name], correct[name], num_bins, binning) for name in confidences]
    return float(np.mean(errors))

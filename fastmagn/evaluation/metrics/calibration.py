"""Calibration errors of confidences, in float64 on the host.

torchmetrics is not used: it has the bins of `width`, but one more for confidences of exactly 1, which a float32 softmax
often gives, and it sums in the precision of its input.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from fastmagn.errors import check, is_integer

Binning = Literal["width", "adaptive"]
Pooling = Literal["pooled", "per_corruption"]


class Bins(NamedTuple):
    """Predictions in n_B bins: their number, how many are correct, and the sum of confidences, float64 [n_B] each."""

    counts: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray

    @property
    def gaps(self) -> np.ndarray:
        """|accuracy - mean confidence| of each bin times its count; 0 for an empty bin."""
        return np.abs(self.correct - self.confidence)

    @property
    def rms(self) -> float:
        """The RMS calibration error; see `rms_calibration_error`."""
        filled = self.counts > 0
        return float(np.sqrt(np.sum(self.gaps[filled] ** 2 / self.counts[filled]) / self.counts.sum()))

    @property
    def ece(self) -> float:
        """The expected calibration error; see `expected_calibration_error`."""
        return float(self.gaps.sum() / self.counts.sum())

    @property
    def diagram(self) -> dict[str, list[float | None]]:
        """The data of a reliability diagram; see `reliability_diagram`."""

        def means(sums: np.ndarray) -> list[float | None]:
            return [float(total / count) if count else None for total, count in zip(sums, self.counts, strict=True)]

        counts: list[float | None] = [int(count) for count in self.counts]
        return {"count": counts, "accuracy": means(self.correct), "confidence": means(self.confidence)}


def bin_predictions(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15, binning: Binning = "width"
) -> Bins:
    """Distribute n predictions over n_B bins of increasing confidence.

    `width`: bin i holds the confidences in [i / n_B, (i + 1) / n_B), and the last bin also holds 1. `adaptive`: the
    predictions, sorted by confidence, are cut into n_B bins whose counts differ by at most one, the larger ones first.
    Predictions of equal confidence share their accuracy, so the result does not depend on the order of the input.

    Args:
        confidences: [n], the largest class probability of each prediction, 0..1.
        correct: [n], bool, or a share in 0..1: whether that class is the label.
        num_bins: n_B, 1 or more.
        binning: width or adaptive.

    Raises:
        InputError: There are no predictions; the lengths differ; a value is outside 0..1 or not a number; an option is
            unknown.
    """
    confidences, correct = checked_predictions(confidences, correct, "calibration error")
    check(is_integer(num_bins) and num_bins >= 1, "eval.num_bins", num_bins, "1 or more")
    check(binning in ("width", "adaptive"), "eval.binning", binning, "width or adaptive")
    if binning == "width":
        lower_edges = np.arange(num_bins) / num_bins
        bins = np.searchsorted(lower_edges, confidences, side="right") - 1
    else:
        confidences, correct = in_order_of_confidence(confidences, correct)
        sizes = [len(part) for part in np.array_split(confidences, num_bins)]
        bins = np.repeat(np.arange(num_bins), sizes)
    counts = np.bincount(bins, minlength=num_bins).astype(np.float64)
    return Bins(counts, np.bincount(bins, correct, num_bins), np.bincount(bins, confidences, num_bins))


def checked_predictions(confidences: np.ndarray, correct: np.ndarray, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [n].

    Args:
        confidences: [n], or of another shape with n values.
        correct: Likewise, bool, or shares in 0..1.
        field: What messages begin with.

    Raises:
        InputError: There are none; their numbers differ; a value is outside 0..1 or not a number.
    """
    confidences, correct = (np.ravel(values).astype(np.float64) for values in (confidences, correct))
    check(len(confidences) > 0, field, "no predictions", "at least one")
    check(len(correct) == len(confidences), field, f"{len(correct)} outcomes", f"{len(confidences)}")
    for name, values in (("confidences", confidences), ("correct", correct)):
        in_range = bool(np.all((values >= 0) & (values <= 1)))
        check(in_range, field, f"{name} {values.min()}..{values.max()}", "0..1")
    return confidences, correct


def in_order_of_confidence(confidences: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays, float64 [n], sorted by confidence; predictions of equal confidence all get their mean correctness.

    Args:
        confidences: [n].
        correct: [n], bool, or shares in 0..1.
    """
    order = np.argsort(confidences)
    confidences, correct = confidences[order], correct[order].astype(np.float64)
    is_first = np.concatenate([[True], confidences[1:] != confidences[:-1]])
    if is_first.all():
        return confidences, correct
    starts = np.flatnonzero(is_first)
    counts = np.diff(starts, append=len(confidences))
    return confidences, np.repeat(np.add.reduceat(correct, starts) / counts, counts)


def rms_calibration_error(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """E_c = sqrt(sum_i |B_i| / n (accuracy of B_i - mean confidence of B_i)^2), a fraction in 0..1; empty bins add 0.

    Arguments and errors are those of `bin_predictions`.

    Source: the paper, section 4 (E_c), which does not say n_B or the bins. `adaptive` is by Nguyen and O'Connor, EMNLP
    2015. AugMix's code, after Hendrycks, Mazeika and Dietterich, ICLR 2019, fixes 100 predictions per bin; here the
    number of bins is fixed.
    """
    return bin_predictions(confidences, correct, num_bins, binning).rms


def expected_calibration_error(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15, binning: Binning = "width"
) -> float:
    """ECE = sum_i |B_i| / n |accuracy of B_i - mean confidence of B_i|, a fraction in 0..1.

    Arguments and errors are those of `bin_predictions`.

    Source: C. Guo et al., "On calibration of modern neural networks", ICML 2017, equation 3. The `adaptive` bins are
    those of J. Nixon et al., "Measuring calibration in deep learning", CVPR workshops 2019, for the largest
    probability.
    """
    return bin_predictions(confidences, correct, num_bins, binning).ece


def rms_error_by_chance(counts: Sequence[int], confidence: Sequence[float | None]) -> float:
    """The RMS calibration error that a perfectly calibrated model has on so few predictions, 0..1.

    The accuracy of a bin of n_i predictions with mean confidence c_i then has the variance c_i (1 - c_i) / n_i. This is
    the root of the expected square of `rms_calibration_error`, with the confidences of a bin taken as equal and the
    predictions as independent.

    Args:
        counts: The predictions in each bin, at least one in all.
        confidence: The mean confidence of each bin, 0..1; None for an empty one.
    """
    variances = sum(mean * (1 - mean) for mean in confidence if mean is not None)
    return float(np.sqrt(variances / sum(counts)))


def reliability_diagram(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15, binning: Binning = "width"
) -> dict[str, list[float | None]]:
    """The data of a reliability diagram: each bin's `count`, `accuracy` and mean `confidence`, None for an empty bin.

    Arguments and errors are those of `bin_predictions`.
    """
    return bin_predictions(confidences, correct, num_bins, binning).diagram


def corrupt_rms_calibration_error(
    confidences: Mapping[str, np.ndarray],
    correct: Mapping[str, np.ndarray],
    num_bins: int = 15,
    binning: Binning = "width",
    pooling: Pooling = "pooled",
) -> float:
    """The RMS calibration error under corruption, a fraction in 0..1.

    `pooled` bins all predictions together. `per_corruption` is the mean over corruptions, each with its five severities
    binned together.

    Args:
        confidences: corruption -> [5, N], 0..1.
        correct: corruption -> bool [5, N], the same corruptions.
        num_bins: As in `rms_calibration_error`.
        binning: As in `rms_calibration_error`.
        pooling: pooled or per_corruption.

    Raises:
        InputError: There is no corruption, the corruptions differ, the pooling is unknown, or as in
            `rms_calibration_error`.
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

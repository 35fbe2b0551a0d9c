"""Accuracy under corruption, as fractions in 0..1."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from fastmagn.corruptions import SEVERITIES
from fastmagn.corruptions.sets import sets_to_show
from fastmagn.errors import check

# AlexNet's error under each corruption of ImageNet-C, averaged over the five severities, as published with the set
# (github.com/hendrycks/robustness; to three digits in table 1 of Hendrycks and Dietterich, ICLR 2019).
ALEXNET_ERROR = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def corruption_accuracy(
    correct: Mapping[str, np.ndarray], severities: Mapping[str, Sequence[int]] | None = None
) -> dict[str, list[float | None]]:
    """The table that results.json holds: for each corruption, the accuracy at severities 1..5.

    Args:
        correct: corruption -> bool [S, N]; row s is for the severity at that place.
        severities: corruption -> the S severities, 1 to 5 or some of them; None means all five. The accuracy at others
            is None.

    Raises:
        InputError: A corruption has no images, or another number of severities.
    """
    table = {}
    for name, is_correct in correct.items():
        is_correct = np.asarray(is_correct)
        measured = SEVERITIES if severities is None else severities[name]
        shape_ok = is_correct.ndim == 2 and is_correct.shape[0] == len(measured) and is_correct.shape[1] > 0
        wanted = f"shape [{len(measured)}, N] with N at least 1"
        check(shape_ok, f"predictions under {name}", list(is_correct.shape), wanted)
        means = dict(zip(measured, is_correct.mean(axis=1, dtype=np.float64).tolist(), strict=True))
        table[name] = [means.get(severity) for severity in SEVERITIES]
    return table


def mean_of_all(values: Iterable[float | None]) -> float | None:
    """The mean, in float64; None if one of the values is None."""
    values = list(values)
    known = [value for value in values if value is not None]
    return float(np.mean(known, dtype=np.float64)) if len(known) == len(values) else None


def measured_mean(accuracies: Sequence[float | None], severities: Sequence[int] = SEVERITIES) -> float | None:
    """The mean of a corruption's accuracies at the severities that were measured; None if one of these is None."""
    return mean_of_all(accuracies[severity - 1] for severity in severities)


def mean_corruption_accuracy(
    corruption_accuracy: Mapping[str, Sequence[float | None]], names: Iterable[str]
) -> float | None:
    """mCA: the plain mean over the corruptions `names` and their severities; None if the table lacks one of them.

    Args:
        corruption_accuracy: corruption -> accuracies at severities 1..5; None where there is none.
        names: The corruptions of the set, such as c15, c18 or c19; at least one, and none twice.
    """
    names = tuple(names)
    assert len(set(names)) == len(names) > 0
    rows = [corruption_accuracy.get(name, [None] * 5) for name in names]
    assert all(len(row) == 5 for row in rows)
    return mean_of_all(chain.from_iterable(rows))


def mean_cbar_accuracy(corruption_accuracy: Mapping[str, Sequence[float | None]]) -> float | None:
    """The mean over C-bar's ten, those of CIFAR-10-C-bar or those of ImageNet-C-bar; None if the table has neither."""
    complete = [name for name, accuracies in corruption_accuracy.items() if None not in accuracies]
    members = sets_to_show(complete).get("cbar")
    return mean_corruption_accuracy(corruption_accuracy, members) if members else None


def alexnet_normalised_error(corruption_accuracy: Mapping[str, Sequence[float | None]]) -> float | None:
    """ImageNet-C's mCE: the mean over the 15 corruptions of (error / AlexNet's error), 1 for AlexNet itself.

    It may exceed 1. It is not the mean error, which is 1 - mCA. None if the table lacks one of the 15.

    Args:
        corruption_accuracy: corruption -> accuracies at severities 1..5, on ImageNet-C; None where there is none.

    Source: D. Hendrycks and T. Dietterich, ICLR 2019, section 4.1, where it is in per cent.
    """
    means = {name: mean_of_all(corruption_accuracy.get(name, [None])) for name in ALEXNET_ERROR}
    return mean_of_all(None if mean is None else (1 - mean) / ALEXNET_ERROR[name] for name, mean in means.items())

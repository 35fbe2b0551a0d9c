"""Accuracy of each class (its recall), from counts, so that no label is kept for each cell.

Shape letters: S severities, M images, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastmagn.evaluation.metrics.predictions import Predictions, not_finite


class ClassCounts(NamedTuple):
    """How many images of each class there are, and how many of them are classified correctly.

    Args:
        num_images: int64 [K].
        correct: float64 [S, K]; NaN where a prediction of the class is not finite.
    """

    num_images: np.ndarray
    correct: np.ndarray


def count_classes(predictions: Predictions, labels: np.ndarray, num_classes: int) -> ClassCounts:
    """Count the predictions of each class.

    Args:
        predictions: [S, M], or [M] for one cell.
        labels: int64 [M], in 0..K - 1.
        num_classes: K.
    """
    right = np.atleast_2d(np.where(not_finite(predictions), np.nan, predictions.correct))
    correct = np.stack([np.bincount(labels, row, num_classes) for row in right])
    return ClassCounts(np.bincount(labels, minlength=num_classes), correct)


def add_counts(parts: Sequence[ClassCounts]) -> ClassCounts:
    """The counts of several parts of the images, such as those of torchrun's processes, as one."""
    return ClassCounts(*(np.sum(values, axis=0) for values in zip(*parts, strict=True)))


def class_accuracy(parts: Mapping[str, Sequence[ClassCounts]]) -> dict[str, Any]:
    """The accuracy of each class, K fractions in 0..1, and their mean, for each of some groups of cells.

    Args:
        parts: Name -> the group's counts: those of the clean images, or of several corruptions. The first group says
            how many images a class has.

    Returns:
        `num_images`, K integers; the K accuracies under each name, each the mean over the group's cells; and
        `balanced_accuracy`, by name, the mean over the classes that have images there. A class is None without images,
        or where a prediction of its own is not finite; so is the mean that needs such a class.
    """
    each = {name: _accuracies(counts) for name, counts in parts.items()}
    return {
        "num_images": next(iter(parts.values()))[0].num_images.tolist(),
        **{name: [_known(value) for value in accuracies] for name, (accuracies, _) in each.items()},
        "balanced_accuracy": {
            name: _known(accuracies[has_images].mean()) if has_images.any() else None
            for name, (accuracies, has_images) in each.items()
        },
    }


def _accuracies(counts: Sequence[ClassCounts]) -> tuple[np.ndarray, np.ndarray]:
    """The mean over all cells, float64 [K], NaN where a cell has none; and which classes have images, bool [K]."""
    with np.errstate(invalid="ignore"):  # 0 / 0
        cells = np.concatenate([one.correct / one.num_images for one in counts])
    return cells.mean(axis=0), np.any([one.num_images > 0 for one in counts], axis=0)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

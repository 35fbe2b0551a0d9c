"""The measured part of results.json. Shape letter: M images."""

import math
from typing import Any

import numpy as np

from fastmagn.config.schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.evaluation.metrics.accuracy import corruption_accuracy, mean_corruption_accuracy
from fastmagn.evaluation.metrics.calibration import (
    corrupt_rms_calibration_error,
    expected_calibration_error,
    reliability_diagram,
    rms_calibration_error,
)
from fastmagn.evaluation.metrics.predictions import Predictions, concatenate

CALIBRATION_SET = "c18"  # the paper's


def summarise(clean: Predictions, corrupted: dict[str, Predictions], config: EvalConfig) -> dict[str, Any]:
    """Accuracies, mCA and calibration, as fractions in 0..1 (nll in nats), with the settings that they depend on.

    Args:
        clean: Predictions for the clean images, [M].
        corrupted: Predictions under each measured corruption at severities 1 to 5, [5, M]; at least one corruption.
        config: `num_bins`, `binning` and `pooling`.

    Returns:
        `num_images`, `clean_accuracy`, `mca` (None for a set that is not measured completely), `corruption_accuracy`,
        `rms_calibration_error`, `calibration` (ECE, NLL, Brier score) and `reliability`. The last three are over c18
        under corruption, or over all measured corruptions if these do not include c18; `corruption_set` says which.

        Whatever has a prediction that is not finite among its own is None: an accuracy, and every mean that needs it.
    """
    accuracy = _accuracies(corrupted)
    is_complete = all(name in corrupted for name in CORRUPTION_SETS[CALIBRATION_SET])
    names = CORRUPTION_SETS[CALIBRATION_SET] if is_complete else tuple(corrupted)
    bins = {"num_bins": config.num_bins, "binning": config.binning}
    set_names = {frozenset(members): name for name, members in CORRUPTION_SETS.items()}
    settings = {"corruption_set": set_names.get(frozenset(names), "+".join(names)), **bins, "pooling": config.pooling}
    pooled = {"clean": clean, "corrupt": concatenate([corrupted[name] for name in names])}
    finite = {part: not not_finite(group).any() for part, group in pooled.items()}
    corrupt_rms = None
    if finite["corrupt"]:
        corrupt_rms = corrupt_rms_calibration_error(
            {name: corrupted[name].confidences for name in names},
            {name: corrupted[name].correct for name in names},
            **bins,
            pooling=config.pooling,
        )
    return {
        "num_images": clean.correct.size,
        "clean_accuracy": float(clean.correct.mean()) if finite["clean"] else None,
        "mca": {name: mean_corruption_accuracy(accuracy, members) for name, members in CORRUPTION_SETS.items()},
        "corruption_accuracy": accuracy,
        "rms_calibration_error": {
            "clean": rms_calibration_error(clean.confidences, clean.correct, **bins) if finite["clean"] else None,
            "corrupt": corrupt_rms,
            **settings,
        },
        "calibration": {
            **{
                name: {
                    "ece": expected_calibration_error(group.confidences, group.correct, **bins)
                    if finite[name]
                    else None,
                    "nll": _finite_mean(group.nll),
                    "brier": _finite_mean(group.brier),
                }
                for name, group in pooled.items()
            },
            **settings,
            "pooling": "pooled",
        },
        "reliability": {
            name: reliability_diagram(group.confidences, group.correct, **bins) if finite[name] else None
            for name, group in pooled.items()
        },
    }


def not_finite(predictions: Predictions) -> np.ndarray:
    """Which predictions come from logits that are NaN or infinite, bool of their shape."""
    return np.isnan(predictions.confidences)


def _accuracies(corrupted: dict[str, Predictions]) -> dict[str, list[float | None]]:
    """The accuracies of each corruption by severity."""
    table = corruption_accuracy({name: predictions.correct for name, predictions in corrupted.items()})
    return {
        name: [
            None if is_faulty else value
            for value, is_faulty in zip(values, not_finite(corrupted[name]).any(axis=1), strict=True)
        ]
        for name, values in table.items()
    }


def _finite_mean(values: np.ndarray) -> float | None:
    """Their mean; None if it is NaN, or infinite, as -log p is where the true class is ruled out."""
    mean = float(values.mean())
    return mean if math.isfinite(mean) else None

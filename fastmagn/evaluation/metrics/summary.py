"""The measured part of results.json. Shape letter: M images."""

import math
from typing import Any

import numpy as np

from fastmagn.config.schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.evaluation.metrics.accuracy import corruption_accuracy, mean_corruption_accuracy
from fastmagn.evaluation.metrics.calibration import (
    bin_predictions,
    corrupt_rms_calibration_error,
    expected_calibration_error,
    in_order_of_confidence,
)
from fastmagn.evaluation.metrics.predictions import Predictions, concatenate
from fastmagn.evaluation.metrics.selective import SelectiveRisk, selective_risk

CALIBRATION_SET = "c18"  # the paper's
_SELECTIVE = SelectiveRisk._fields


def summarise(clean: Predictions, corrupted: dict[str, Predictions], config: EvalConfig) -> dict[str, Any]:
    """Accuracies, mCA and calibration, as fractions in 0..1 (nll in nats), with the settings that they depend on.

    Args:
        clean: Predictions for the clean images, [M].
        corrupted: Predictions under each measured corruption at severities 1 to 5, [5, M]; at least one corruption.
        config: `num_bins`, `binning` and `pooling`.

    Returns:
        `num_images`, `clean_accuracy`, `mca` (None for a set that is not measured completely), `mean_corruption_error`
        (1 - mCA, the unnormalised mCE), `corruption_accuracy`, and what `confidence_measures` returns.

        Whatever has a prediction that is not finite among its own is None: an accuracy, and every mean that needs it.
    """
    accuracy = _accuracies(corrupted)
    mca = {name: mean_corruption_accuracy(accuracy, members) for name, members in CORRUPTION_SETS.items()}
    return {
        "num_images": clean.correct.size,
        "clean_accuracy": None if not_finite(clean).any() else float(clean.correct.mean()),
        "mca": mca,
        "mean_corruption_error": {name: None if value is None else 1 - value for name, value in mca.items()},
        "corruption_accuracy": accuracy,
        **confidence_measures(clean, corrupted, config),
    }


def confidence_measures(clean: Predictions, corrupted: dict[str, Predictions], config: EvalConfig) -> dict[str, Any]:
    """What the confidences are worth: calibration and selective prediction; arguments are those of `summarise`.

    Returns:
        `rms_calibration_error`, `calibration` (`ece`; `adaptive_ece`, whose bins hold equal numbers of predictions;
        `nll`; `brier`), `reliability`, and `selective_prediction` (`aurc` and `risk_at_80_coverage`, see
        `selective.SelectiveRisk`). All are over c18 under corruption, or over all measured corruptions if these do not
        include c18; `corruption_set` says which. What has a prediction that is not finite is None.
    """
    is_complete = all(name in corrupted for name in CORRUPTION_SETS[CALIBRATION_SET])
    names = CORRUPTION_SETS[CALIBRATION_SET] if is_complete else tuple(corrupted)
    set_names = {frozenset(members): name for name, members in CORRUPTION_SETS.items()}
    which = {"corruption_set": set_names.get(frozenset(names), "+".join(names))}
    bins = {"num_bins": config.num_bins, "binning": config.binning}
    settings = {**which, **bins, "pooling": config.pooling}
    pooled = {"clean": clean, "corrupt": concatenate([corrupted[name] for name in names])}
    measured = {part: _measure_confidences(group, config) for part, group in pooled.items()}
    corrupt_rms = measured["corrupt"]["rms"]
    if config.pooling == "per_corruption" and corrupt_rms is not None:
        corrupt_rms = corrupt_rms_calibration_error(
            {name: corrupted[name].confidences for name in names},
            {name: corrupted[name].correct for name in names},
            **bins,
            pooling=config.pooling,
        )
    return {
        "rms_calibration_error": {"clean": measured["clean"]["rms"], "corrupt": corrupt_rms, **settings},
        "calibration": {
            **{part: entry["calibration"] for part, entry in measured.items()},
            **settings,
            "pooling": "pooled",
        },
        "reliability": {part: entry["reliability"] for part, entry in measured.items()},
        "selective_prediction": {**{part: entry["selective"] for part, entry in measured.items()}, **which},
    }


def _measure_confidences(group: Predictions, config: EvalConfig) -> dict[str, Any]:
    """The measures of one group of predictions, [n]; None if a prediction is not finite."""
    means = {"nll": _finite_mean(group.nll), "brier": _finite_mean(group.brier)}
    if not_finite(group).any():
        calibration = {"ece": None, "adaptive_ece": None, **means}
        return {"rms": None, "calibration": calibration, "reliability": None, "selective": dict.fromkeys(_SELECTIVE)}
    bins = bin_predictions(group.confidences, group.correct, config.num_bins, config.binning)
    ordered = in_order_of_confidence(group.confidences, group.correct)  # sorts once for the two that need an order
    adaptive_ece = expected_calibration_error(*ordered, config.num_bins, "adaptive")
    return {
        "rms": bins.rms,
        "calibration": {"ece": bins.ece, "adaptive_ece": adaptive_ece, **means},
        "reliability": bins.diagram,
        "selective": selective_risk(*ordered)._asdict(),
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

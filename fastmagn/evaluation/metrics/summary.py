"""The measured part of results.json. Shape letter: M images."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES
from fastmagn.corruptions.sets import MEASURED, are_covered, set_name, sets_to_show, with_severities
from fastmagn.evaluation.metrics.accuracy import (
    corruption_accuracy,
    mean_corruption_accuracy,
    mean_of_all,
    measured_mean,
)
from fastmagn.evaluation.metrics.calibration import (
    bin_predictions,
    corrupt_rms_calibration_error,
    expected_calibration_error,
    in_order_of_confidence,
)
from fastmagn.evaluation.metrics.classes import ClassCounts, class_accuracy
from fastmagn.evaluation.metrics.predictions import Predictions, concatenate, not_finite
from fastmagn.evaluation.metrics.selective import SelectiveRisk, selective_risk

CALIBRATION_SET = "c18"  # the paper's
_SELECTIVE = SelectiveRisk._fields


def summarise(
    clean: Predictions,
    corrupted: dict[str, Predictions],
    config: EvalConfig,
    severities: Mapping[str, tuple[int, ...]],
    classes: Mapping[str, ClassCounts],
) -> dict[str, Any]:
    """Accuracies, mCA and calibration, as fractions in 0..1 (nll in nats), with the settings that they depend on.

    Args:
        clean: Predictions for the clean images, [M].
        corrupted: Predictions under each measured corruption at its severities, [S, M]; at least one corruption.
        config: `num_bins`, `binning` and `pooling`.
        severities: The severities of each corruption.
        classes: The counts of `clean` and of each corruption.

    Returns:
        `num_images`, `clean_accuracy`, `mca`, `mean_corruption_error` (1 - mCA, the unnormalised mCE),
        `corruption_accuracy`, what `confidence_measures` returns, and `class_accuracy`, see `classes.class_accuracy`.
        Its `corrupt` is the mean over all cells of its `corruption_set`, that of the calibration errors. `mca` has c15,
        c18 and c19 (None if not measured completely), and cbar if it was measured; it has `measured`, the mean over all
        that was measured, if complete sets do not cover it.

        Only if some corruption has fewer than five severities: `severities`, which they are, by corruption. Its
        accuracy at the others is None, and so is every set's mean that needs them; `measured` is over those that it
        has.

        Whatever has a prediction that is not finite among its own is None: an accuracy, and every mean that needs it.
    """
    names, which = _pooled_set(severities)
    accuracy = _accuracies(corrupted, severities)
    mca = _means(accuracy, severities)
    few = {name: list(severities[name]) for name in corrupted if len(severities[name]) < len(SEVERITIES)}
    return {
        "num_images": clean.correct.size,
        "clean_accuracy": None if not_finite(clean).any() else float(clean.correct.mean()),
        "mca": mca,
        "mean_corruption_error": {name: None if value is None else 1 - value for name, value in mca.items()},
        "corruption_accuracy": accuracy,
        **({"severities": few} if few else {}),
        **confidence_measures(clean, corrupted, config, severities),
        "class_accuracy": {
            **class_accuracy({"clean": [classes["clean"]], "corrupt": [classes[name] for name in names]}),
            **which,
        },
    }


def confidence_measures(
    clean: Predictions,
    corrupted: dict[str, Predictions],
    config: EvalConfig,
    severities: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    """What the confidences are worth: calibration and selective prediction; arguments are those of `summarise`.

    Returns:
        `rms_calibration_error`, `calibration` (`ece`; `adaptive_ece`, whose bins hold equal numbers of predictions;
        `nll`; `brier`), `reliability`, and `selective_prediction` (`aurc` and `risk_at_80_coverage`, see
        `selective.SelectiveRisk`). All are over c18 under corruption; else over what was measured of c19; else over all
        that was measured. `corruption_set` says which, and at which severities if these are not all five. What has a
        prediction that is not finite is None.
    """
    names, which = _pooled_set(severities)
    bins: dict[str, Any] = {"num_bins": config.num_bins, "binning": config.binning}
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


def _pooled_set(severities: Mapping[str, tuple[int, ...]]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The corruptions whose cells are taken together, and what the results say of them."""
    title, names = _calibrated(severities)
    return names, {"corruption_set": with_severities(title, {name: severities[name] for name in names})}


def _calibrated(measured: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """The title and the members of the set that the calibration errors are over, of the measured corruptions."""
    if set(CORRUPTION_SETS[CALIBRATION_SET]) <= set(measured):
        return CALIBRATION_SET, CORRUPTION_SETS[CALIBRATION_SET]
    names = tuple(name for name in measured if name in CORRUPTION_SETS["c19"]) or tuple(measured)
    return set_name(names), names


def _means(
    accuracy: Mapping[str, list[float | None]], severities: Mapping[str, tuple[int, ...]]
) -> dict[str, float | None]:
    """The mCA of each set, and of all that was measured if the sets do not cover it."""
    means = {name: mean_corruption_accuracy(accuracy, members) for name, members in sets_to_show(accuracy).items()}
    if not are_covered([name for name in accuracy if len(severities[name]) == len(SEVERITIES)], accuracy):
        each = [measured_mean(accuracies, severities[name]) for name, accuracies in accuracy.items()]
        means[MEASURED] = mean_of_all(each)
    return means


def _accuracies(
    corrupted: dict[str, Predictions], severities: Mapping[str, tuple[int, ...]]
) -> dict[str, list[float | None]]:
    """The accuracies of each corruption by severity; None where it has a prediction that is not finite, or none."""
    table = corruption_accuracy({name: predictions.correct for name, predictions in corrupted.items()}, severities)
    faulty = {
        name: dict(zip(severities[name], [row.any() for row in not_finite(predictions)], strict=True))
        for name, predictions in corrupted.items()
    }
    return {
        name: [
            None if faulty[name].get(severity) else value for severity, value in zip(SEVERITIES, values, strict=True)
        ]
        for name, values in table.items()
    }


def _finite_mean(values: np.ndarray) -> float | None:
    """Their mean; None if it is NaN, or infinite, as -log p is where the true class is ruled out."""
    mean = float(values.mean())
    return mean if math.isfinite(mean) else None

"""The measured part of a run's results.json."""

from typing import Any

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

CALIBRATION_SET = "c18"  # the paper's, wherever it was measured whole


def summarise(clean: Predictions, corrupted: dict[str, Predictions], config: EvalConfig) -> dict[str, Any]:
    """Accuracies, mCA and calibration, as fractions in 0..1 (nll in nats), with the settings that they depend on.

    Args:
        clean: Predictions for the M clean images.
        corrupted: For each corruption measured, predictions [5, M] at severities 1 to 5; not empty.
        config: `num_bins`, `binning` and `pooling`.

    Returns:
        `clean_accuracy`, `mca` (None for a set that was not measured whole), `corruption_accuracy`,
        `rms_calibration_error`, `calibration` (ECE, NLL, Brier score) and `reliability`, all of which are of c18 where
        they are corrupt, or of what was measured where that is not all of c18: `corruption_set` says it.
    """
    accuracy = corruption_accuracy({name: cells.correct for name, cells in corrupted.items()})
    whole = all(name in corrupted for name in CORRUPTION_SETS[CALIBRATION_SET])
    names = CORRUPTION_SETS[CALIBRATION_SET] if whole else tuple(corrupted)
    bins = {"num_bins": config.num_bins, "binning": config.binning}
    known = {frozenset(members): name for name, members in CORRUPTION_SETS.items()}
    measured_set = known.get(frozenset(names), "+".join(names))
    settings = {"corruption_set": measured_set, **bins, "pooling": config.pooling}
    pooled = {"clean": clean, "corrupt": concatenate([corrupted[name] for name in names])}
    corrupt_rms = corrupt_rms_calibration_error(
        {name: corrupted[name].confidences for name in names},
        {name: corrupted[name].correct for name in names},
        **bins,
        pooling=config.pooling,
    )
    return {
        "num_images": clean.correct.size,
        "clean_accuracy": float(clean.correct.mean()),
        "mca": {name: mean_corruption_accuracy(accuracy, members) for name, members in CORRUPTION_SETS.items()},
        "corruption_accuracy": accuracy,
        "rms_calibration_error": {
            "clean": rms_calibration_error(clean.confidences, clean.correct, **bins),
            "corrupt": corrupt_rms,
            **settings,
        },
        "calibration": {
            **{
                name: {
                    "ece": expected_calibration_error(group.confidences, group.correct, **bins),
                    "nll": float(group.nll.mean()),
                    "brier": float(group.brier.mean()),
                }
                for name, group in pooled.items()
            },
            **settings,
            "pooling": "pooled",
        },
        "reliability": {
            name: reliability_diagram(group.confidences, group.correct, **bins) for name, group in pooled.items()
        },
    }

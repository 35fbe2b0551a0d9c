"""The measured part of results.json. Shape letter: M images."""

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
    """
    accuracy = corruption_accuracy({name: predictions.correct for name, predictions in corrupted.items()})
    is_complete = all(name in corrupted for name in CORRUPTION_SETS[CALIBRATION_SET])
    names = CORRUPTION_SETS[CALIBRATION_SET] if is_complete else tuple(corrupted)
    bins = {"num_bins": config.num_bins, "binning": config.binning}
    set_names = {frozenset(members): name for name, members in CORRUPTION_SETS.items()}
    settings = {"corruption_set": set_names.get(frozenset(names), "+".join(names)), **bins, "pooling": config.pooling}
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

"""The paper's measures, accuracy under corruption and RMS calibration error, and other common ones."""

from fastmagn.evaluation.metrics.accuracy import corruption_accuracy, mean_corruption_accuracy
from fastmagn.evaluation.metrics.calibration import (
    corrupt_rms_calibration_error,
    expected_calibration_error,
    reliability_diagram,
    rms_calibration_error,
)
from fastmagn.evaluation.metrics.predictions import Predictions, measure_logits

__all__ = [
    "Predictions",
    "corrupt_rms_calibration_error",
    "corruption_accuracy",
    "expected_calibration_error",
    "mean_corruption_accuracy",
    "measure_logits",
    "reliability_diagram",
    "rms_calibration_error",
]

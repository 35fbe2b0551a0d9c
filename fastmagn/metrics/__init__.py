"""What the paper reports: accuracy under corruption, and the RMS calibration error."""

from fastmagn.metrics.accuracy import corruption_accuracy, mean_corruption_accuracy
from fastmagn.metrics.calibration import corrupt_rms_calibration_error, rms_calibration_error

__all__ = ["corrupt_rms_calibration_error", "corruption_accuracy", "mean_corruption_accuracy", "rms_calibration_error"]

"""What the captions of tables say of their numbers: the bins, what chance alone gives, and the runs behind them."""

import statistics
from collections.abc import Iterable, Sequence

from fastmagn.evaluation.metrics.calibration import rms_error_by_chance
from fastmagn.reporting.experiments import Experiment, calibration_bins
from fastmagn.reporting.names import network_title

CALIBRATION_DECIMALS = 1  # of the paper's numbers, in per cent


def bins(experiments: Iterable[Experiment]) -> str:
    """How the calibration errors were computed, each way once."""
    ways: dict[str, None] = {}
    for experiment in experiments:
        for run in experiment.runs:
            ways[calibration_bins(run)] = None
    return "; or ".join(ways)


def error_by_chance(experiments: Iterable[Experiment]) -> str:
    """The calibration error that a perfectly calibrated model has on so many images; empty where bins are not known."""
    diagrams = [run.reliability for experiment in experiments for run in experiment.runs if run.reliability]
    errors = [
        statistics.fmean(
            rms_error_by_chance(diagram[part]["count"], diagram[part]["confidence"]) for diagram in diagrams
        )
        for part in ("clean", "corrupt")
        if diagrams
    ]
    shown = [f"{100 * error:.{CALIBRATION_DECIMALS}f}" for error in errors]
    return (
        f" A perfectly calibrated model has about {shown[0]} clean and {shown[1]} corrupt by chance." if shown else ""
    )


def spread(experiments: Sequence[Experiment]) -> str:
    """How many images and runs the numbers come from."""
    images = sorted({run.num_images for experiment in experiments for run in experiment.runs})
    tested = f"On {' to '.join(f'{number:,}' for number in dict.fromkeys((images[0], images[-1])))} test images."
    several = len({experiment.network for experiment in experiments}) > 1
    seeds = [
        (f"{item.label} on {network_title(item.network)}" if several else item.label, len(item.runs))
        for item in experiments
    ]
    if all(number == 1 for _, number in seeds):
        return f"{tested} One run each."
    numbers = {number for _, number in seeds}
    counts = f"{numbers.pop()} each" if len(numbers) == 1 else ", ".join(f"{label} {number}" for label, number in seeds)
    return f"{tested} Mean ± sample standard deviation over runs that differ only in their seed: {counts}."

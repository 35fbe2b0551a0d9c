"""What the captions of tables say of their numbers: the bins, what chance alone gives, and the runs behind them."""

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
    """The clean calibration error that a perfectly calibrated model has on so many images; empty without known bins.

    Nothing is said of corrupt images: predictions for one image under several corruptions are not independent.
    """
    known = [run.reliability["clean"] for experiment in experiments for run in experiment.runs if run.reliability]
    errors = [rms_error_by_chance(diagram["count"], diagram["confidence"]) for diagram in known]
    ends = dict.fromkeys(f"{100 * end(errors, default=0):.{CALIBRATION_DECIMALS}f}" for end in (min, max))
    said = f" By chance alone, a perfectly calibrated model has a clean error of about {' to '.join(ends)}."
    return said if known else ""


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
    is_alike = len(numbers) == 1 and len(seeds) > 1
    counts = f"{numbers.pop()} each" if is_alike else ", ".join(f"{label} {number}" for label, number in seeds)
    return f"{tested} Mean ± sample standard deviation over runs that differ only in their seed: {counts}."

"""In what the runs of a report are not alike, so that a difference between them may not be the method's."""

from collections.abc import Callable, Sequence

from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.corruptions import SEVERITIES
from fastmagn.corruptions.sets import are_covered, severities_title
from fastmagn.data.subset import BY_CLASS
from fastmagn.errors import some
from fastmagn.reporting.experiments import Experiment, calibration_bins
from fastmagn.reporting.names import network_title, set_title
from fastmagn.reporting.runs import FinishedRun

UNLIKE = "These runs differ in more than their method; a difference between them may come from that."
UNKNOWN = "not known of weights from a file"
_MOST_NAMED = 4
# Fields of `data` that say where images lie and who decodes them, or what another aspect names already.
_NOT_DATA = {"data.name", "data.dir", "data.download", "data.source", "data.num_workers"}


def unlike(experiments: Sequence[Experiment]) -> list[str]:
    """A line for each of epochs, test images, corruptions, bins, training data and seeds in which runs differ.

    It names the values, and the methods that have them: their runs by name where the seeds of one method differ.
    """
    runs = [run for experiment in experiments for run in experiment.runs]
    aspects: dict[str, Callable[[FinishedRun], str]] = {
        "Epochs": lambda run: UNKNOWN if run.weights else run.trained_for,
        "Test images": _test_images,
        "Corrupted images": _corrupted_images,
        "Corruptions": _corruptions(runs),
        "Severities": _severities(runs),
        "Calibration errors": calibration_bins,
        "Training data": _training_data,
    }
    lines = []
    for title, read in aspects.items():
        by_value: dict[str, list[str]] = {}
        for experiment in experiments:
            values = [read(run) for run in experiment.runs]
            if len(set(values)) == 1:
                by_value.setdefault(values[0], []).append(_label(experiment, experiments))
                continue
            for run, value in zip(experiment.runs, values, strict=True):
                by_value.setdefault(value, []).append(str(run.path))
        by_value.pop("", None)  # `read` has nothing to say
        lines += _line(title, by_value)
    by_seeds: dict[str, list[str]] = {}
    for experiment in experiments:
        if experiment.runs[0].weights:
            continue
        seeds = sorted({run.seed for run in experiment.runs})
        by_seeds.setdefault(", ".join(map(str, seeds)), []).append(_label(experiment, experiments))
    return lines + _line("Seeds", by_seeds)


def _line(title: str, by_value: dict[str, list[str]]) -> list[str]:
    if len(by_value) < 2:
        return []
    return [f"{title}: {'; '.join(f'{value} ({some(names, _MOST_NAMED)})' for value, names in by_value.items())}."]


def _label(experiment: Experiment, experiments: Sequence[Experiment]) -> str:
    several = len({item.network for item in experiments}) > 1
    return f"{experiment.label} on {network_title(experiment.network)}" if several else experiment.label


def _test_images(run: FinishedRun) -> str:
    chosen = f" drawn evenly over the classes by seed {run.subset.seed}" if run.subset.chosen == BY_CLASS else ""
    return f"{run.num_images:,}{chosen}"


def _corrupted_images(run: FinishedRun) -> str:
    if run.are_published:
        return "of a published set"
    version, quality = run.corruptions
    return f"made by fastmagn, version {version}, {f'JPEG {quality}' if quality else 'no JPEG'}"


def _corruptions(runs: Sequence[FinishedRun]) -> Callable[[FinishedRun], str]:
    """Reads which corruptions a run has measured, if some of these runs have measured others than whole sets."""
    are_sets = all(are_covered(run.corruption_accuracy, run.corruption_accuracy) for run in runs)
    return lambda run: "" if are_sets else set_title([*run.corruption_accuracy])


def _severities(runs: Sequence[FinishedRun]) -> Callable[[FinishedRun], str]:
    """Reads the severities of those corruptions that not all of these runs have measured at the same ones."""

    def measured(run: FinishedRun) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(severity for severity in SEVERITIES if cells[severity - 1] is not None)
            for name, cells in run.corruption_accuracy.items()
        }

    ways: dict[str, set[tuple[int, ...]]] = {}
    for run in runs:
        for name, severities in measured(run).items():
            ways.setdefault(name, set()).add(severities)

    def read(run: FinishedRun) -> str:
        unlike = {name: severities for name, severities in measured(run).items() if len(ways[name]) > 1}
        return severities_title(unlike).removeprefix("severities ").removeprefix("severity ")

    return read


def _training_data(run: FinishedRun) -> str:
    if run.weights:
        return UNKNOWN
    config, defaults = run.fields, flatten(Config())
    fields = [name for name in config if name.startswith("data.") and name not in _NOT_DATA]
    changed = [f"{name} {config[name]}" for name in fields if config[name] != defaults.get(name)]
    return ", ".join(changed) or "all training images"

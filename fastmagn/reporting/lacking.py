"""What some runs of an experiment have measured and others have not: it has no mean, so the report does not show it."""

from collections.abc import Iterable

from fastmagn.errors import some
from fastmagn.reporting.experiments import Experiment
from fastmagn.reporting.names import corruption_title, data_title, network_title
from fastmagn.reporting.runs import FinishedRun

_TITLES = {
    "calibration": "the expected calibration error",
    "temperature_scaling": "temperature scaling",
    "selective_prediction": "selective prediction",
    "class_accuracy": "accuracy by class",
    "mce_alexnet": "the error divided by AlexNet's",
    "perturbations": "perturbations",
    "fourier": "the Fourier heat map",
    "adapted_batch_norm": "adapted batch normalisation",
}


def lacking(experiments: Iterable[Experiment]) -> list[str]:
    """A line for each run that lacks what another run of its experiment has."""
    lines = []
    for item in experiments:
        measured = [_measured(run) for run in item.runs]
        of_some = dict.fromkeys(cell for cells in measured for cell in cells)
        for run, cells in zip(item.runs, measured, strict=True):
            if missing := dict.fromkeys(name for name, severity in of_some if (name, severity) not in cells):
                where = f"{item.label}, {data_title(item.data)}, {network_title(item.network)}"
                lines.append(
                    f"{run.path}: lacks {some(missing)}, which another seed of {where} has. The report has no mean of"
                    " it: measure this run as the others, or leave it out."
                )
    return lines


def _measured(run: FinishedRun) -> list[tuple[str, int]]:
    """What a run has measured, in words, and at which severity; 0 for what has none."""
    entries = run.measures | run.protocols._asdict()
    names = [title for name, title in _TITLES.items() if entries.get(name) is not None]
    names += [f"out-of-distribution detection with {data_title(name)}" for name in run.measures.get("ood") or {}]
    return [(name, 0) for name in names] + [
        (corruption_title(name), severity)
        for name, accuracies in run.corruption_accuracy.items()
        for severity, accuracy in enumerate(accuracies, start=1)
        if accuracy is not None
    ]

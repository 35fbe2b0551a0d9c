"""The figures of a report as plain data: fractions in 0..1. figures.py draws them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

from fastmagn.corruptions import PERTURBATIONS, SEVERITIES
from fastmagn.corruptions.sets import severities_title
from fastmagn.evaluation.metrics.accuracy import mean_of_all
from fastmagn.reporting.experiments import (
    CALIBRATION_SET,
    Experiment,
    common_set,
    corrupt_rms,
    measured_severities,
    without_sensitivity,
)
from fastmagn.reporting.names import data_title, file_name, measured_title, network_title
from fastmagn.reporting.paper import paper_counterpart
from fastmagn.reporting.protocols import fourier_titles
from fastmagn.reporting.provenance import measuring_command
from fastmagn.reporting.runs import FinishedRun
from fastmagn.reporting.tables import by_network, make_cell
from fastmagn.runs.paths import EVALUATION, METRICS

Series = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FigureData:
    """One figure.

    Args:
        kind: The kind of drawing, a key of `figures.DRAWINGS`.
        name: The name of its files.
        title: What it shows.
        caption: How to read it.
        axes: What all series have in common, such as the corruptions.
        series: One per experiment (for training, one per run): `label`, `method`, `variant`, `look` and the
            numbers.
    """

    kind: str
    name: str
    title: str
    caption: str
    axes: dict[str, Any]
    series: tuple[Series, ...]


def make_figures(experiments: Sequence[Experiment]) -> tuple[list[FigureData], list[str]]:
    """All figures of one data set, and a note for each run that a figure cannot show."""
    figures, notes = [], []
    for group in by_network(experiments):
        figures += [accuracy_bars(group), *corruption_profile(group), *severity_curves(group)]
        for maker in (perturbation_curves, fourier_maps, reliability_diagrams, training_curves):
            made, missing = maker(group)
            figures += made
            notes += missing
    figures.append(calibration_bars(without_sensitivity(experiments)))
    return figures, notes


def accuracy_bars(group: Sequence[Experiment]) -> FigureData:
    """As in the paper's Figures 2 and 4: clean accuracy and mCA of each method."""
    title, names = common_set(group)
    measure = "mca" if title == CALIBRATION_SET else ""
    series = []
    for experiment in group:
        clean = make_cell(experiment, lambda run: run.clean_accuracy, "clean")
        mca = make_cell(experiment, lambda run: run.mca(names) if names else None, measure)
        series.append(
            _identity(experiment) | {"clean": clean._asdict() if clean else None, "mca": mca._asdict() if mca else None}
        )
    counterpart = paper_counterpart(group[0].data, group[0].network, cifar10="Figure 2", cifar100="Figure 4")
    return FigureData(
        kind="accuracy_bars",
        name=_name(group, "accuracy"),
        title=f"Clean accuracy{f' and mCA ({title})' if names else ''}, {_where(group)}{counterpart}",
        caption=_bars_caption([cell for item in series for cell in (item["clean"], item["mca"])]),
        axes={"corruption_set": title},
        series=tuple(series),
    )


def corruption_profile(group: Sequence[Experiment]) -> list[FigureData]:
    """As in the paper's Figures 3 and 5: the accuracy on each corruption, mean over severities."""
    measured = measured_severities(group)
    series = []
    for experiment in group:
        cells = {name: experiment.statistic(methodcaller("mean", name, some)) for name, some in measured.items()}
        series.append(_identity(experiment) | {"accuracy": {name: cell and cell.mean for name, cell in cells.items()}})
    counterpart = paper_counterpart(group[0].data, group[0].network, cifar10="Figure 3", cifar100="Figure 5")
    profile = FigureData(
        kind="corruption_profile",
        name=_name(group, "profile"),
        title=f"Accuracy by corruption, {_where(group)}{counterpart}",
        caption=f"Mean over {severities_title(measured)}, and over seeds.",
        axes={"corruptions": [*measured]},
        series=tuple(series),
    )
    return [profile]


def severity_curves(group: Sequence[Experiment]) -> list[FigureData]:
    """Accuracy against severity, where 0 is clean: the mean over the common corruptions, and a panel per corruption."""
    title, names = common_set(group)
    severities = [0, *SEVERITIES]
    figures = []
    if names:
        series = []
        for experiment in group:
            points = [experiment.statistic(_at_severity(names, severity)) for severity in severities]
            series.append(
                _identity(experiment)
                | {
                    "accuracy": [point and point.mean for point in points],
                    "sd": [point and point.sd for point in points],
                }
            )
        figures.append(
            FigureData(
                kind="severity",
                name=_name(group, "severity"),
                title=f"Accuracy against severity, mean over {title}, {_where(group)}",
                caption="Severity 0 is clean. Means over seeds, bars their standard deviation.",
                axes={"corruption_set": title, "severities": severities},
                series=tuple(series),
            )
        )
    measured = [*measured_severities(group)]
    series = []
    for experiment in group:
        curves = {}
        for name in measured:
            points = [experiment.statistic(_at_severity((name,), severity)) for severity in severities]
            curves[name] = [point and point.mean for point in points]
        series.append(_identity(experiment) | {"accuracy": curves})
    figures.append(
        FigureData(
            kind="severity_grid",
            name=_name(group, "severity_by_corruption"),
            title=f"Accuracy against severity, by corruption, {_where(group)}",
            caption="Severity 0 is clean. Means over seeds.",
            axes={"corruptions": measured, "severities": severities},
            series=tuple(series),
        )
    )
    return figures


def reliability_diagrams(group: Sequence[Experiment]) -> tuple[list[FigureData], list[str]]:
    """Accuracy in bins of confidence, clean and corrupt. The runs of an experiment are pooled."""
    notes = []
    for experiment in group:
        notes += [
            f"{run.path}: its results have no reliability bins, so the reliability diagrams do not show it. Run"
            f" {measuring_command(run)}, then report {run.path if run.weights else run.folder / EVALUATION}."
            for run in experiment.runs
            if run.reliability is None
        ]
    whole = [item for item in group if all(run.reliability is not None for run in item.runs)]
    if not whole:
        return [], notes
    by_set, mixed = _by_way(whole, lambda run: run.rms["corruption_set"], "sets of corruptions", "reliability diagrams")
    parts = [("clean", "clean images", whole)]
    parts += [("corrupt", f"corrupt images ({measured_title(name)})", items) for name, items in by_set.items()]
    figures = []
    for number, (part, shown, items) in enumerate(parts):
        series = tuple(_identity(item) | _pooled_bins(item, part) for item in items)
        figures.append(
            FigureData(
                kind="reliability",
                name=_name(group, "reliability", part, *_number(number)),
                title=f"Reliability on {shown}, {_where(group)}",
                caption="Bars are the accuracy of the predictions in a bin of confidence, dots its mean confidence "
                "(calibrated: dots at the top of their bars, bars up to the diagonal), the dotted line the share of "
                "all predictions. Seeds pooled; RMS is their mean calibration error.",
                axes={"part": part, "shown": shown, "network": group[0].network},
                series=series,
            )
        )
    return figures, notes + mixed


def training_curves(group: Sequence[Experiment]) -> tuple[list[FigureData], list[str]]:
    """Loss and accuracy by epoch, one line per run."""
    series, notes = [], []
    for experiment in group:
        for run in experiment.runs:
            if not run.epochs:
                notes.append(f"{run.path}: has no {METRICS} beside its results, so the training curves do not show it.")
                continue
            columns = ("loss", "train_accuracy", "validation_accuracy")
            series.append(
                _identity(experiment)
                | {"seed": run.seed, "epoch": [row["epoch"] for row in run.epochs]}
                | {name: [row.get(name) for row in run.epochs] for name in columns}
            )
    if not series:
        return [], notes
    figure = FigureData(
        kind="training",
        name=_name(group, "training"),
        title=f"Training, {_where(group)}",
        caption="One line for each run. The loss is each method's own, with its consistency terms: compare it within a "
        "method only. Training accuracy is that of the augmented clean views.",
        axes={},
        series=tuple(series),
    )
    return [figure], notes


def perturbation_curves(group: Sequence[Experiment]) -> tuple[list[FigureData], list[str]]:
    """The share of the images whose prediction flips at each frame of CIFAR-10-P's sequences."""
    found, notes = _by_way(
        group, lambda run: run.protocols.are_stored, "sequences, of fastmagn's and of a -P set", "curves of flips"
    )
    figures = []
    for number, (are_stored, items) in enumerate(sorted(found.items()), start=1):
        series: list[Series] = []
        for item in items:
            entries: list[Any] = [run.protocols.perturbations for run in item.runs]
            flips = {
                name: _mean_lists([entry["flips_by_frame"].get(name) for entry in entries]) for name in PERTURBATIONS
            }
            series.append(_identity(item) | {"flips": flips})
        names = [name for name in PERTURBATIONS if any(one["flips"][name] is not None for one in series)]
        if names:
            figures.append(
                FigureData(
                    kind="perturbations",
                    name=_name(group, "perturbations", *_number(number)),
                    title=f"Flips along perturbation sequences{' of a -P set' * are_stored}, {_where(group)}",
                    caption="The share of the images whose predicted class is another than in the frame before (noise: "
                    "than in the first frame). The mean over a sequence's frames is its flip probability. The scales "
                    "differ. Means over seeds.",
                    axes={"perturbations": names},
                    series=tuple(series),
                )
            )
    return figures, notes


def fourier_maps(group: Sequence[Experiment]) -> tuple[list[FigureData], list[str]]:
    """The error under a perturbation along each Fourier basis image, a map per method; a figure for each norm."""
    found, notes = _by_way(
        group,
        lambda run: run.protocols.fourier_way if run.protocols.fourier_error is not None else None,
        "norms or numbers of images",
        "Fourier heat maps",
    )
    figures = []
    for number, (way, title) in enumerate(fourier_titles(found).items(), start=1):
        series: list[Series] = []
        for item in found[way]:
            entries: list[Any] = [run.protocols.fourier for run in item.runs]
            if all(entry["frequencies"] == entries[0]["frequencies"] for entry in entries):
                rows = [_mean_lists(list(rows)) for rows in zip(*(entry["error"] for entry in entries), strict=True)]
                mean_error = sum(entry["mean_error"] for entry in entries) / len(entries)
                shown = {"frequencies": entries[0]["frequencies"], "error": rows, "mean_error": mean_error}
                series.append(_identity(item) | shown)
        if series:
            figures.append(
                FigureData(
                    kind="fourier",
                    name=_name(group, "fourier", *_number(number)),
                    title=f"Fourier heat map, {title}, {_where(group)}",
                    caption="The error when the Fourier basis image of a frequency is added, with a random sign for "
                    f"each image and channel and l2 norm {way.norm:g} per channel. Dark: every prediction is wrong. "
                    "Low frequencies are in the middle. Means over seeds.",
                    axes={},
                    series=tuple(series),
                )
            )
    return figures, notes


def calibration_bars(experiments: Sequence[Experiment]) -> FigureData:
    """As in the paper's Figure 6, and the same on clean images: RMS calibration error by network and method."""
    groups = by_network(experiments)
    sets = [run.rms["corruption_set"] for item in experiments for run in item.runs]
    chosen = CALIBRATION_SET if CALIBRATION_SET in sets else sets[0]
    by_label: dict[str, Series] = {}
    for number, group in enumerate(groups):
        for experiment in group:
            entry = by_label.setdefault(
                experiment.label,
                _identity(experiment) | {"clean": [None] * len(groups), "corrupt": [None] * len(groups)},
            )
            clean = make_cell(experiment, lambda run: run.rms["clean"], "rms_clean")
            measure = "rms_corrupt" if chosen == CALIBRATION_SET else ""
            corrupt = make_cell(experiment, lambda run: corrupt_rms(run, chosen), measure)
            entry["clean"][number] = clean._asdict() if clean else None
            entry["corrupt"][number] = corrupt._asdict() if corrupt else None
    ranks = {experiment.label: experiment.rank for experiment in reversed(experiments)}
    title = measured_title(chosen)
    data = experiments[0].data
    paper = " (the paper's Figure 6)" if data == "cifar10" else ""
    return FigureData(
        kind="calibration_bars",
        name=file_name(data, "calibration"),
        title=f"RMS calibration error, {data_title(data)}{paper}",
        caption="Lower is better. "
        + _bars_caption([cell for item in by_label.values() for cell in (*item["clean"], *item["corrupt"])]),
        axes={"networks": [group[0].network for group in groups], "corruption_set": title},
        series=tuple(by_label[label] for label in sorted(by_label, key=lambda label: ranks[label])),
    )


def _bars_caption(cells: list[Series | None]) -> str:
    shown = [cell for cell in cells if cell is not None]
    several = any(cell["sd"] is not None for cell in shown)
    beside = " Diamonds are the paper's numbers." if any(cell["paper"] is not None for cell in shown) else ""
    return (
        f"Bars are means over seeds, lines their standard deviation.{beside}" if several else f"One run each.{beside}"
    )


def _pooled_bins(experiment: Experiment, part: str) -> Series:
    """The bins of all runs together, accuracies and confidences weighted by their counts, and the mean RMS error."""
    diagrams: list[Any] = [run.reliability and run.reliability[part] for run in experiment.runs]
    counts = [sum(bins) for bins in zip(*(diagram["count"] for diagram in diagrams), strict=True)]
    pooled: Series = {"binning": experiment.runs[0].rms["binning"], "num_bins": len(counts), "count": counts}
    for name in ("accuracy", "confidence"):
        sums = [
            sum(diagram["count"][i] * diagram[name][i] for diagram in diagrams if diagram["count"][i])
            for i in range(len(counts))
        ]
        pooled[name] = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
    rms = experiment.statistic(lambda run: run.rms[part])
    return pooled | {"rms": rms and rms.mean}


def _mean_lists(lists: Sequence[Sequence[float] | None]) -> list[float] | None:
    """Their mean, element by element; None if one is None or has another length."""
    known = [values for values in lists if values is not None]
    if len(known) < len(lists) or len({len(values) for values in known}) > 1:
        return None
    return [sum(values) / len(known) for values in zip(*known, strict=True)]


def _at_severity(names: Sequence[str], severity: int) -> Callable[[FinishedRun], float | None]:
    """Measures the mean accuracy of a run over the corruptions `names` at a severity, 0..5; 0 is clean."""

    def accuracy(run: FinishedRun) -> float | None:
        if any(name not in run.corruption_accuracy for name in names):
            return None
        if severity == 0:
            return run.clean_accuracy
        return mean_of_all(run.corruption_accuracy[name][severity - 1] for name in names)

    return accuracy


def _identity(experiment: Experiment) -> Series:
    names = ("label", "method", "variant", "look")
    return {name: getattr(experiment, name) for name in names}


def _by_way(
    group: Sequence[Experiment], read: Callable[[FinishedRun], Any], ways: str, figures: str
) -> tuple[dict[Any, list[Experiment]], list[str]]:
    """The experiments by the way that `read` gives for each of their runs; without those that have a run without one.

    An experiment whose runs were measured in several ways has no mean: it is left out, and a note says so.
    """
    found: dict[Any, list[Experiment]] = {}
    notes = []
    for item in group:
        values = set(map(read, item.runs))
        if len(values) == 1 and None not in values:
            found.setdefault(values.pop(), []).append(item)
        elif None not in values:
            notes.append(f"{item.label}, {_where(group)}: its runs have several {ways}; the {figures} do not show it.")
    return found, notes


def _number(number: int) -> tuple[str, ...]:
    """What follows the name of a figure that is not the first of its kind."""
    return (str(number),) if number > 1 else ()


def _name(group: Sequence[Experiment], *what: str) -> str:
    return file_name(group[0].data, group[0].network, *what)


def _where(group: Sequence[Experiment]) -> str:
    return f"{data_title(group[0].data)}, {network_title(group[0].network)}"

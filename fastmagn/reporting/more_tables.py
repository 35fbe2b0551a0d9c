"""Tables of the measures that the paper has no table of: corruption errors, expected calibration error, temperature
scaling, selective prediction, accuracy by class, out-of-distribution detection, perturbations, adapted batch
normalisation. A table is made if some run has its numbers.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import counted
from fastmagn.reporting.experiments import Experiment
from fastmagn.reporting.names import CORRUPTION_KINDS, data_title, file_name, measured_title, network_title
from fastmagn.reporting.protocols import FourierWay, fourier_titles
from fastmagn.reporting.runs import FinishedRun
from fastmagn.reporting.tables import (
    Column,
    Measure,
    Row,
    Table,
    best_row,
    by_network,
    experiment_rows,
    make_cell,
    measured_sets,
    spread,
)
from fastmagn.runs.reading import SCORES

MORE = "more"  # the section of the page that these tables are in
_SCORE_TITLES = {"max_softmax": "maximum softmax", "energy": "energy", "max_logit": "maximum logit"}
_MCE, _CLASSES = "mce_alexnet", "class_accuracy"
MAX_CLASSES, NUM_WORST = 100, 50  # of more classes, a table has the worst only
_BEST = "The best of each network is bold."


def more_tables(experiments: Sequence[Experiment]) -> list[Table]:
    """The tables of one data set that some run has numbers for."""
    makers = (
        *(error_table, ece_table, temperature_table, selective_table, detection_table),
        *(stability_table, adapted_table),
    )
    tables = [make(experiments) for make in makers]
    tables[4:4] = map(class_table, by_network(experiments))
    return [table for table in tables if any(cell is not None for row in table.rows for cell in row.cells)]


def error_table(experiments: Sequence[Experiment]) -> Table:
    """The mean corruption error: as it is, without the noise corruptions, on C-bar, and divided by AlexNet's."""
    c15 = CORRUPTION_SETS["c15"]
    quiet = tuple(name for name in c15 if name not in CORRUPTION_KINDS["Noise"])

    def error(mca: Callable[[FinishedRun], float | None]) -> Callable[[FinishedRun], float | None]:
        def of(run: FinishedRun) -> float | None:
            accuracy = mca(run)
            return None if accuracy is None else 1 - accuracy

        return of

    by_alexnet = " By AlexNet's, each corruption's error is first divided by AlexNet's, as published for ImageNet-C."
    measures = [
        Measure(Column("Clean error"), lambda run: 1 - run.clean_accuracy, lower=True),
        Measure(Column("Error c15"), error(lambda run: run.mca(c15)), lower=True),
        Measure(Column("Error c15 without noise"), error(lambda run: run.mca(quiet)), lower=True),
        Measure(Column("Error cbar"), error(lambda run: run.cbar_mca), lower=True),
        Measure(Column("mCE by AlexNet's"), _number(_MCE), lower=True),
    ]
    return _table(
        experiments,
        "errors",
        "Mean corruption error",
        "The error of a set is the mean over its corruptions and severities, 100 − mCA. Without noise, the three noise"
        " corruptions are left out: a method that trains with noise has an advantage on them."
        f"{by_alexnet if _MCE in {name for run in _runs(experiments) for name in run.measures} else ''}",
        measures,
    )


def ece_table(experiments: Sequence[Experiment]) -> Table:
    """The expected calibration error, with bins of equal width and of equal numbers of predictions."""
    measures = [
        Measure(Column(f"{title} {shown}"), _number("calibration", part, key, on=on), lower=True)
        for part, shown, on in _parts(experiments, "calibration")
        for title, key in (("ECE", "ece"), ("adaptive ECE", "adaptive_ece"))
    ]
    return _table(
        experiments,
        "ece",
        "Expected calibration error",
        "The bins of the adaptive ECE have equal numbers of predictions; those of the ECE are as for the RMS error.",
        measures,
    )


def temperature_table(experiments: Sequence[Experiment]) -> Table:
    """Calibration errors with and without temperature scaling."""
    scaled = [item for item in experiments if any(_part(run, "temperature_scaling") for run in item.runs)]
    measures, eces = [], []
    for part, shown, on in _parts(scaled, "rms_calibration_error"):
        rms, ece = ("rms_calibration_error", part), ("temperature_scaling", "calibration", part, "ece")
        measures += [
            Measure(Column(f"RMS {shown}"), _number(*rms, on=on), lower=True),
            Measure(Column(f"RMS {shown}, scaled"), _number("temperature_scaling", *rms, on=on), lower=True),
        ]
        eces.append(Measure(Column(f"ECE {shown}, scaled"), _number(*ece, on=on), lower=True))
    return _table(
        scaled,
        "temperature",
        "Calibration with temperature scaling",
        "All logits are divided by one temperature, which is fitted on held-out images: the run's own validation"
        " images, test images that are not measured (test), or a folder.",
        [*measures, *eces],
        {
            "Temperature": lambda item: _texts(item, lambda entry: f"{entry['temperature']:.3f}"),
            "Fitted on": lambda item: _texts(item, lambda entry: f"{entry['num_images']:,} of {entry['images']}"),
        },
    )


def selective_table(experiments: Sequence[Experiment]) -> Table:
    """How many errors are left if the model may abstain where it is least confident."""
    key = "selective_prediction"
    measures = [
        Measure(Column(f"{title} {shown}"), _number(key, part, name, on=on), lower=True)
        for part, shown, on in _parts(experiments, key)
        for title, name in (("AURC", "aurc"), ("Risk at 80 %", "risk_at_80_coverage"))
    ]
    return _table(
        experiments,
        "selective",
        "Selective prediction",
        "AURC is the area under the risk-coverage curve: the share of errors among the k most confident predictions,"
        " averaged over all k. Risk at 80 %: that share where the model answers for 80 % of the images.",
        measures,
    )


def class_table(group: Sequence[Experiment]) -> Table:
    """One network's accuracy by class: a row for each class, or for the worst, and one for the balanced accuracy.

    The columns are the clean images, then each set of corruptions, each with the experiments side by side. Experiments
    that have not measured a set have no column of it.
    """
    parts, data, network = _parts(group, _CLASSES), group[0].data, group[0].network
    places = {id(run): _places_by_class(run) for run in _runs(group)}
    names = dict.fromkeys(name for of_run in places.values() for name in of_run)

    def row(labels: tuple[str, str], readers: Iterable[Callable[[FinishedRun], float | None]]) -> Row:
        return Row(labels, tuple(cell for read in readers for cell in best_row((), group, read, "").cells))

    def of_class(name: str, read: Callable[[FinishedRun], Any]) -> Callable[[FinishedRun], float | None]:
        def of(run: FinishedRun) -> float | None:
            values, place = read(run), places[id(run)].get(name)
            return None if values is None or place is None else values[place]

        return of

    counts = {
        name: _each(of_class(name, _number(_CLASSES, "num_images"))(run) for run in _runs(group)) for name in names
    }
    accuracies = [_number(_CLASSES, part, on=on) for part, _, on in parts]
    rows = [row((name, counts[name]), [of_class(name, read) for read in accuracies]) for name in names]
    worst = ""
    if len(rows) > MAX_CLASSES:
        worst = f" The {NUM_WORST} of {len(rows)} classes whose row has the lowest mean, the lowest first."
        rows = sorted(rows, key=_mean_of_row)[:NUM_WORST]
    rows.append(
        row(("Balanced accuracy", ""), [_number(_CLASSES, "balanced_accuracy", part, on=on) for part, _, on in parts])
    )
    columns = [Column(f"{item.label}, {shown}" if len(group) > 1 else shown) for _, shown, _ in parts for item in group]
    kept = [i for i in range(len(columns)) if i < len(group) or any(one.cells[i] is not None for one in rows)]
    return Table(
        name=file_name(data, network, "classes"),
        title=f"Accuracy by class, {data_title(data)}, {network_title(network)}",
        caption="Per cent of each class's images (its recall); under corruption the mean over the set's corruptions and"
        f" severities. Balanced accuracy is the mean over the classes.{worst}{_smallest(group)} The best of each row is"
        f" bold. {spread(group)}",
        row_headers=("Class", "Images"),
        columns=tuple(columns[i] for i in kept),
        rows=tuple(one._replace(cells=tuple(one.cells[i] for i in kept)) for one in rows),
        section=MORE,
    )


def _places_by_class(run: FinishedRun) -> dict[str, int]:
    """The name of each class, and its place in the run's numbers."""
    entry = _part(run, _CLASSES) or {"num_images": []}
    names = entry.get("class_names") or [f"class {label}" for label in range(len(entry["num_images"]))]
    return {name: place for place, name in enumerate(names)}


def _each(counts: Iterable[float | None]) -> str:
    """The numbers of images that runs have, each once."""
    return " or ".join(dict.fromkeys(f"{count:,}" for count in counts if count is not None))


def _smallest(group: Sequence[Experiment]) -> str:
    """How far an accuracy on the smallest class may be off."""
    counts = [
        count for run in _runs(group) for count in (_part(run, _CLASSES) or {"num_images": []})["num_images"] if count
    ]
    if not counts:
        return ""
    return (
        f" The smallest class has {counted(min(counts), 'image')}: the standard error of its clean accuracy is up to"
        f" {50 / min(counts) ** 0.5:.1f} points."
    )


def _mean_of_row(row: Row) -> float:
    """The mean of its cells; a row without any is last."""
    means = [cell.mean for cell in row.cells if cell is not None]
    return sum(means) / len(means) if means else 1.0


def detection_table(experiments: Sequence[Experiment]) -> Table:
    """A row for each experiment, set of other images and score."""
    names = dict.fromkeys(name for run in _runs(experiments) for name in _part(run, "ood") or {})
    columns = {
        "AUROC": "auroc",
        "AUPR in": "aupr_in",
        "AUPR out": "aupr_out",
        "FPR at 95 % TPR": "fpr_at_95_tpr",
        "FPR, other images positive": "fpr_at_95_tpr_out",
    }
    rows = []
    for item in experiments:
        for name in names:
            for score in SCORES:
                cells = tuple(make_cell(item, _number("ood", name, score, key), "") for key in columns.values())
                if any(cell is not None for cell in cells):
                    labels = (item.label, network_title(item.network), data_title(name), _SCORE_TITLES[score])
                    rows.append(Row(labels, cells))
    data = experiments[0].data
    return Table(
        name=file_name(data, "ood"),
        title=f"Out-of-distribution detection, {data_title(data)}",
        caption="Per cent: how well a score tells the clean test images from images of other classes. AUPR in and out"
        " have the test images or the other images as the positive class. FPR at 95 % TPR: the share of other images"
        " that pass where 95 % of the test images do, lower is better; in the last column the two change places."
        f" {spread(experiments)}",
        row_headers=("Method", "Network", "Other images", "Score"),
        columns=tuple(map(Column, columns)),
        rows=tuple(rows),
        section=MORE,
    )


def stability_table(experiments: Sequence[Experiment]) -> Table:
    """How often predictions flip along perturbation sequences, and the mean error of the Fourier heat map."""

    def flips(are_stored: bool) -> Callable[[FinishedRun], float | None]:
        return lambda run: run.protocols.flip_probability if run.protocols.are_stored is are_stored else None

    def error(way: FourierWay) -> Callable[[FinishedRun], float | None]:
        return lambda run: run.protocols.fourier_error if run.protocols.fourier_way == way else None

    ways = fourier_titles(run.protocols.fourier_way for run in _runs(experiments))
    measures = [
        Measure(Column("Flip probability"), flips(are_stored=False), lower=True),
        Measure(Column("Flip probability, -P set"), flips(are_stored=True), lower=True),
        *(Measure(Column(f"Fourier error, {title}"), error(way), lower=True) for way, title in ways.items()),
    ]
    return _table(
        experiments,
        "stability",
        "Perturbations and frequencies",
        "Flip probability: the mean over CIFAR-10-P's sequences, made by fastmagn or those of a -P set. Fourier error:"
        " the mean over all frequencies of the heat map, whose images are fewer.",
        measures,
    )


def adapted_table(experiments: Sequence[Experiment]) -> Table:
    """Accuracy with batch normalisation by each test batch's own statistics."""

    def adapted_mca(names: Sequence[str]) -> Callable[[FinishedRun], float | None]:
        return lambda run: run.protocols.adapted_mca(names)

    measures = [
        Measure(Column("Clean"), lambda run: run.protocols.adapted_clean),
        *(Measure(Column(f"mCA {title}"), adapted_mca(names)) for title, names in measured_sets(experiments)),
        Measure(Column("mCA cbar"), lambda run: run.protocols.adapted_cbar_mca),
    ]
    return _table(
        [part for item in experiments for part in _by_batch(item)],
        "adapted",
        "Adapted batch normalisation",
        "Batch normalisation uses the statistics of each test batch, so that a prediction depends on the other images"
        " of its batch. Not comparable with the other tables.",
        measures,
        {"Batch": _batch},
        better="higher",
    )


def _batch(experiment: Experiment) -> str:
    """The size of the batches that the row's numbers come from; a dash where the row has none."""
    sizes = {run.protocols.adapted_batch for run in experiment.runs}
    return sizes.pop() if len(sizes) == 1 else "–"


def _by_batch(experiment: Experiment) -> list[Experiment]:
    """The experiment, in parts if its runs were measured in batches of several sizes: they decide the numbers.

    If a run lacks the measurement, the experiment has no mean, and stays whole.
    """
    if any(run.protocols.adapted_batch_norm is None for run in experiment.runs):
        return [experiment]
    parts: dict[str, list[FinishedRun]] = {}
    for run in experiment.runs:
        parts.setdefault(run.protocols.adapted_batch, []).append(run)
    return [replace(experiment, runs=tuple(runs)) for runs in parts.values()]


def _table(
    experiments: Sequence[Experiment],
    name: str,
    title: str,
    caption: str,
    measures: Sequence[Measure],
    more_labels: dict[str, Callable[[Experiment], str]] | None = None,
    better: str = "lower",
) -> Table:
    """A table with a row for each experiment; `more_labels` has further labels of a row by their headers."""
    measures = [one for one in measures if any(one.read(run) is not None for run in _runs(experiments))]
    if not measures:
        return Table(name=name, title=title, caption=caption, row_headers=(), columns=(), rows=())
    data, more = experiments[0].data, more_labels or {}
    rows = experiment_rows(experiments, measures, lambda item: tuple(label(item) for label in more.values()))
    return Table(
        name=file_name(data, name),
        title=f"{title}, {data_title(data)}",
        caption=f"Per cent, {better} is better. {caption} {_BEST} {spread(experiments)}",
        row_headers=("Method", "Network", *more),
        columns=tuple(measure.column for measure in measures),
        rows=tuple(rows),
        section=MORE,
    )


def _runs(experiments: Iterable[Experiment]) -> list[FinishedRun]:
    return [run for item in experiments for run in item.runs]


def _parts(experiments: Iterable[Experiment], key: str) -> list[tuple[str, str, str | None]]:
    """(part, its title, corruption set): the clean images, then each set that some run's `key` is over."""
    found = {
        entry["corruption_set"]: None
        for run in _runs(experiments)
        if (entry := _part(run, key)) is not None and isinstance(entry.get("corruption_set"), str)
    }
    titles = [("corrupt", measured_title(name), name) for name in found]
    return [("clean", "clean", None), *titles]


def _part(run: FinishedRun, key: str) -> dict | None:
    entry = run.measures.get(key)
    return entry if isinstance(entry, dict) else None


def _number(*path: str, on: str | None = None) -> Callable[[FinishedRun], float | None]:
    """Reads one number of a run's results; None where there is none, or where it is over another corruption set."""

    def read(run: FinishedRun) -> float | None:
        value: Any = run.measures
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
            if on is not None and isinstance(value, dict) and value.get("corruption_set", on) != on:
                return None
        return value

    return read


def _texts(experiment: Experiment, show: Callable[[dict], str]) -> str:
    """What each run's temperature scaling says, each text once."""
    entries = [_part(run, "temperature_scaling") for run in experiment.runs]
    return ", ".join(dict.fromkeys(show(entry) for entry in entries if entry is not None))

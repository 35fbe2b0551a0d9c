"""The tables of a report as data: fractions in 0..1, no layout. formats.py writes them as Markdown, CSV and LaTeX."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES
from fastmagn.corruptions.sets import sets_to_show, severities_title
from fastmagn.reporting.captions import CALIBRATION_DECIMALS, bins, error_by_chance, spread
from fastmagn.reporting.experiments import (
    CALIBRATION_SET,
    Experiment,
    common_set,
    corrupt_rms,
    measured_severities,
    sensitivity_families,
    without_sensitivity,
)
from fastmagn.reporting.names import corruption_title, data_title, file_name, measured_title, network_title
from fastmagn.reporting.paper import WEIGHTS, paper_counterpart
from fastmagn.reporting.runs import FinishedRun

ACCURACY_DECIMALS = 2  # of the paper's numbers, in per cent
_BEST = "The best of each row is bold."


class Cell(NamedTuple):
    """Our number beside the paper's; fractions in 0..1. `sd` is None for one run, `paper` if the paper has none."""

    mean: float
    sd: float | None
    num_runs: int
    paper: float | None = None
    is_best: bool = False

    @property
    def difference(self) -> float | None:
        """Our number minus the paper's."""
        return None if self.paper is None else self.mean - self.paper


class Column(NamedTuple):
    """The header of a column, and the number of decimals that the paper prints there."""

    label: str
    paper_decimals: int = ACCURACY_DECIMALS


class Row(NamedTuple):
    """A row: one label per row header of the table, and one cell per column (None: not measured)."""

    labels: tuple[str, ...]
    cells: tuple[Cell | None, ...]


class Measure(NamedTuple):
    """A column of one number for each run.

    Args:
        column: Its header.
        read: The number of a run, None if it has none.
        paper: The measure of the paper's number; empty for none.
        lower: Whether lower is better; None where the differences may be chance, so that no best is marked.
    """

    column: Column
    read: Callable[[FinishedRun], float | None]
    paper: str = ""
    lower: bool | None = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Args:
        name: The name of its files.
        title: What it shows.
        caption: How to read it.
        row_headers: The headers of the rows' labels.
        columns: The headers of the cells.
        rows: The rows, from top to bottom.
        shows_paper: Whether it shows the paper's numbers and the differences beside ours.
        section: The page's section that shows it; empty for the paper's tables.
    """

    name: str
    title: str
    caption: str
    row_headers: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    shows_paper: bool = False
    section: str = ""

    def has_paper(self, column: int) -> bool:
        """Whether the paper has a number for any cell of a column."""
        cells = (row.cells[column] for row in self.rows)
        return any(cell is not None and cell.paper is not None for cell in cells)


def make_tables(experiments: Sequence[Experiment]) -> list[Table]:
    """All tables of one data set: the summary, each network's corruptions, networks, calibration and sensitivity."""
    data = experiments[0].data
    assert all(experiment.data == data for experiment in experiments)
    tables = [summary_table(experiments)]
    for group in by_network(experiments):
        tables += corruption_tables(group)
    compared = without_sensitivity(experiments)
    return [*tables, network_table(compared), calibration_table(compared), *sensitivity_tables(experiments)]


def by_network(experiments: Iterable[Experiment]) -> list[list[Experiment]]:
    """The experiments grouped by network, in their order."""
    groups: dict[str, list[Experiment]] = {}
    for experiment in experiments:
        groups.setdefault(experiment.network, []).append(experiment)
    return list(groups.values())


def summary_table(experiments: Sequence[Experiment]) -> Table:
    """A row per experiment: clean accuracy, mCA of every measured set, calibration. The best of a network is marked."""
    data = experiments[0].data
    calibrated = list(dict.fromkeys(run.rms["corruption_set"] for item in experiments for run in item.runs))
    sets = dict(measured_sets(experiments)) | {
        name: members
        for item in experiments
        for name, members in sets_to_show(item.measured).items()
        if any(run.mca(members) is not None for run in item.runs)
    }
    measures = [
        Measure(Column("Clean"), lambda run: run.clean_accuracy, "clean"),
        *(
            Measure(
                Column(f"mCA {name}"),
                _cbar_mca if name == "cbar" else _mca_of(sets[name]),
                "mca" if name == CALIBRATION_SET else "",
            )
            for name in sorted(sets)
        ),
        Measure(Column("RMS clean", CALIBRATION_DECIMALS), lambda run: run.rms["clean"], "rms_clean", lower=None),
    ]
    for name in calibrated:
        column = Column(f"RMS {measured_title(name)}", CALIBRATION_DECIMALS)
        paper = "rms_corrupt" if name == CALIBRATION_SET else ""
        measures.append(Measure(column, _corrupt_rms_of(name), paper, lower=True))
    rows = experiment_rows(experiments, measures, lambda item: (str(len(item.runs)),))
    return Table(
        name=file_name(data, "summary"),
        title=f"Clean accuracy, mCA and calibration, {data_title(data)}",
        caption="Per cent. mCA is the mean accuracy over a set's corruptions and severities; RMS the calibration error,"
        f" lower is better ({bins(experiments)}).{error_by_chance(experiments)} The best of each network is bold."
        f" {spread(experiments)}",
        row_headers=("Method", "Network", "Runs"),
        columns=tuple(measure.column for measure in measures),
        rows=tuple(rows),
        shows_paper=True,
    )


def experiment_rows(
    experiments: Sequence[Experiment],
    measures: Sequence[Measure],
    more_labels: Callable[[Experiment], tuple[str, ...]],
) -> list[Row]:
    """A row for each experiment: method, network, its other labels, its measures. The best of a network is marked."""
    rows = []
    for group in by_network(experiments):
        columns = [best_row((), group, read, paper, lower).cells for _, read, paper, lower in measures]
        labels = [(item.label, network_title(item.network), *more_labels(item)) for item in group]
        rows += [Row(label, cells) for label, cells in zip(labels, zip(*columns, strict=True), strict=True)]
    return rows


def corruption_tables(experiments: Sequence[Experiment]) -> list[Table]:
    """Accuracy by corruption, as in the paper's Tables 1 and 5; and a second table with its numbers, if it has any."""
    compared = [experiment for experiment in without_sensitivity(experiments) if experiment.paper("clean") is not None]
    tables = [_corruption_table(experiments)]
    if compared:
        beside = _corruption_table(compared)
        title = f"{beside.title}, beside the paper's numbers"
        tables.append(dataclasses.replace(beside, name=f"{beside.name}_paper", title=title, shows_paper=True))
    return tables


def _corruption_table(experiments: Sequence[Experiment]) -> Table:
    data, network = experiments[0].data, experiments[0].network
    measured = measured_severities(experiments)
    rows = [best_row(("Clean",), experiments, lambda run: run.clean_accuracy, "clean")]
    for name, severities in measured.items():
        paper = name if severities == SEVERITIES else ""
        rows.append(best_row((corruption_title(name),), experiments, _mean_of(name, severities), paper))
    for name, members in sets_to_show(measured).items():
        if set(members) <= set(measured):
            measure = "mca" if name == CALIBRATION_SET else ""
            rows.append(best_row((f"mCA {name}",), experiments, _mca_of(members), measure))
    counterpart = paper_counterpart(data, network, cifar10="Table 1", cifar100="Table 5")
    return Table(
        name=file_name(data, network, "corruptions"),
        title=f"Accuracy on {data_title(data)}-C by corruption, {network_title(network)}{counterpart}",
        caption=f"Per cent, mean over {severities_title(measured)}. {_BEST} {spread(experiments)}",
        row_headers=("Corruption",),
        columns=tuple(Column(experiment.label) for experiment in experiments),
        rows=tuple(rows),
    )


def network_table(experiments: Sequence[Experiment]) -> Table:
    """As in the paper's Table 2: clean accuracy and mCA of every network, with methods as columns."""
    data = experiments[0].data
    clean = data_title(data)
    sets = measured_sets(experiments)
    labels = _labels(experiments)
    rows = []
    for group in by_network(experiments):
        columns, network = _columns(group, labels), network_title(group[0].network)
        rows.append(best_row((network, clean), columns, lambda run: run.clean_accuracy, "clean"))
        for title, names in sets:
            measure = "mca" if title == CALIBRATION_SET else ""
            rows.append(best_row((network, f"{clean}-C {title}"), columns, _mca_of(names), measure))
        if any(run.cbar_mca is not None for item in group for run in item.runs):
            rows.append(best_row((network, f"{clean}-C-bar"), columns, _cbar_mca, ""))
    paper_table = " (the paper's Table 2)" if data in ("cifar10", "cifar100") else ""
    return Table(
        name=file_name(data, "networks"),
        title=f"Clean accuracy and mCA on {clean} and {clean}-C by network{paper_table}",
        caption=f"Per cent. {_BEST} {spread(experiments)}",
        row_headers=("Network", "Test set"),
        columns=tuple(Column(label) for label in labels),
        rows=tuple(rows),
        shows_paper=True,
    )


def calibration_table(experiments: Sequence[Experiment]) -> Table:
    """As in the paper's Table 3: clean and corrupt RMS calibration error of every network."""
    data = experiments[0].data
    clean = data_title(data)
    sets = list(dict.fromkeys(run.rms["corruption_set"] for experiment in experiments for run in experiment.runs))
    labels = _labels(experiments)
    rows = []
    for group in by_network(experiments):
        columns, network = _columns(group, labels), network_title(group[0].network)
        rows.append(best_row((network, clean), columns, lambda run: run.rms["clean"], "rms_clean", lower=None))
        for name in sets:
            measure = "rms_corrupt" if name == CALIBRATION_SET else ""
            test_set = f"{clean}-C {measured_title(name)}"
            rows.append(best_row((network, test_set), columns, _corrupt_rms_of(name), measure, lower=True))
    paper_table = " (the paper's Table 3)" if data in ("cifar10", "cifar100") else ""
    return Table(
        name=file_name(data, "calibration"),
        title=f"RMS calibration error on {clean} and {clean}-C{paper_table}",
        caption=f"Per cent, lower is better; {bins(experiments)}.{error_by_chance(experiments)} {_BEST}"
        f" {spread(experiments)}",
        row_headers=("Network", "Test set"),
        columns=tuple(Column(label, CALIBRATION_DECIMALS) for label in labels),
        rows=tuple(rows),
        shows_paper=True,
    )


def sensitivity_tables(experiments: Sequence[Experiment]) -> list[Table]:
    """As in the paper's Table 4: a table for each group of experiments that differ only in `WEIGHTS`."""
    tables: list[Table] = []
    for family in sensitivity_families(experiments):
        again = sum(table.name.startswith(_sensitivity_name(family)) for table in tables)
        tables.append(_sensitivity_table(family, f"_{again + 1}" if again else ""))
    return tables


def _sensitivity_name(family: Sequence[Experiment]) -> str:
    return file_name(family[0].data, family[0].network, family[0].method, "sensitivity")


def _sensitivity_table(family: Sequence[Experiment], suffix: str) -> Table:
    base = family[0]
    title, names = common_set(family)
    corruption_set = base.runs[0].rms["corruption_set"]
    is_papers = title == CALIBRATION_SET, corruption_set == CALIBRATION_SET
    rows = []
    for experiment in family:
        cells = (
            make_cell(experiment, lambda run: run.clean_accuracy, "clean"),
            make_cell(experiment, _mca_of(names), "mca" if is_papers[0] else ""),
            make_cell(experiment, lambda run: run.rms["clean"], "rms_clean"),
            make_cell(experiment, _corrupt_rms_of(corruption_set), "rms_corrupt" if is_papers[1] else ""),
        )
        values = tuple(f"{experiment.config[field]:g}" for field in WEIGHTS)
        rows.append(Row(values, cells))
    is_table_4 = any(cell is not None and cell.paper is not None for row in rows for cell in row.cells)
    return Table(
        name=_sensitivity_name(family) + suffix,
        title=f"Sensitivity of {base.label} on {data_title(base.data)}, {network_title(base.network)}"
        + (" (the paper's Table 4)" if is_table_4 else ""),
        caption=f"Per cent; RMS is the calibration error, {bins(family)}. {spread(family)}".strip(),
        row_headers=tuple(WEIGHTS.values()),
        columns=(
            Column("Clean"),
            Column(f"mCA {title}"),
            Column("RMS clean", CALIBRATION_DECIMALS),
            Column(f"RMS {measured_title(corruption_set)}", CALIBRATION_DECIMALS),
        ),
        rows=tuple(sorted(rows, key=lambda row: tuple(map(float, row.labels)))),
        shows_paper=True,
    )


def best_row(
    labels: tuple[str, ...],
    experiments: Sequence[Experiment | None],
    measure: Callable[[FinishedRun], float | None],
    paper: str,
    lower: bool | None = False,
) -> Row:
    """A row, with the best of its cells marked.

    Args:
        labels: Its labels.
        experiments: One for each cell; None for an empty cell.
        measure: The number of a run, None if it has none.
        paper: A measure of `paper_value`; empty for none.
        lower: Whether lower is better; None marks none. The best is that of two or more cells, at printed precision.
    """
    cells = [make_cell(experiment, measure, paper) for experiment in experiments]
    printed = [round(100 * cell.mean, ACCURACY_DECIMALS) for cell in cells if cell is not None]
    if len(printed) > 1 and lower is not None:
        best = min(printed) if lower else max(printed)
        cells = [cell and cell._replace(is_best=round(100 * cell.mean, ACCURACY_DECIMALS) == best) for cell in cells]
    return Row(labels, tuple(cells))


def make_cell(experiment: Experiment | None, measure: Callable[[FinishedRun], float | None], paper: str) -> Cell | None:
    """The mean and the spread of a measure. `paper` is the measure of the paper's number, empty for none."""
    if experiment is None or (statistic := experiment.statistic(measure)) is None:
        return None
    return Cell(*statistic, paper=experiment.paper(paper) if paper else None)


def _mean_of(corruption: str, severities: Sequence[int]) -> Callable[[FinishedRun], float | None]:
    return lambda run: run.mean(corruption, severities)


def _mca_of(names: Sequence[str]) -> Callable[[FinishedRun], float | None]:
    return lambda run: run.mca(names) if names else None


def _cbar_mca(run: FinishedRun) -> float | None:
    return run.cbar_mca


def _corrupt_rms_of(corruption_set: str) -> Callable[[FinishedRun], float | None]:
    return lambda run: corrupt_rms(run, corruption_set)


def measured_sets(experiments: Sequence[Experiment]) -> list[tuple[str, tuple[str, ...]]]:
    """c18 if a run has measured it, and the set that all runs have measured if it is another.

    If the runs have no corruption in common, c15 takes its place if a run has measured it. C-bar is not among these:
    see `FinishedRun.cbar_mca`.
    """
    title, names = common_set(experiments)
    of_some = [CALIBRATION_SET] if names else [CALIBRATION_SET, "c15"]
    runs = [run for item in experiments for run in item.runs]
    sets = {
        name: CORRUPTION_SETS[name]
        for name in of_some
        if any(run.mca(CORRUPTION_SETS[name]) is not None for run in runs)
    }
    if names and title != "cbar":
        sets.setdefault(title, names)
    return list(sets.items())


def _labels(experiments: Iterable[Experiment]) -> list[str]:
    """All labels, each once, by method and variant."""
    first: dict[str, Experiment] = {}
    for experiment in experiments:
        first.setdefault(experiment.label, experiment)
    return sorted(first, key=lambda label: first[label].rank)


def _columns(group: Sequence[Experiment], labels: Sequence[str]) -> list[Experiment | None]:
    of_label = {experiment.label: experiment for experiment in group}
    return [of_label.get(label) for label in labels]

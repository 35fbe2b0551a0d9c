"""A whole report, as data (report.json) and as a folder: a page, Markdown, tables and figures."""

import itertools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fastmagn import __version__
from fastmagn.config.text import escape_markdown
from fastmagn.corruptions.sets import sets_to_show
from fastmagn.errors import InputError, printable
from fastmagn.machine.console import console
from fastmagn.machine.files import check_writable, replace_folder, write_bytes, write_json, write_text
from fastmagn.machine.leftovers import names_locked, remove_leftovers
from fastmagn.reporting.experiments import Experiment, group_experiments
from fastmagn.reporting.figure_data import FigureData, make_figures
from fastmagn.reporting.figures import FIGURE_FORMATS, to_files
from fastmagn.reporting.fonts import note_on_boxes
from fastmagn.reporting.formats import TABLE_FORMATS, narrow_tables, to_console, to_markdown
from fastmagn.reporting.headline import headlines
from fastmagn.reporting.lacking import lacking
from fastmagn.reporting.more_tables import more_tables
from fastmagn.reporting.names import data_title
from fastmagn.reporting.page import MOST_OPEN, to_page
from fastmagn.reporting.provenance import command, runs_table
from fastmagn.reporting.runs import FinishedRun, read_runs
from fastmagn.reporting.tables import Table, by_network, corruption_tables, make_tables
from fastmagn.reporting.unlike import UNLIKE, unlike

FORMAT_VERSION = 1
DATA_FILE, TEXT_FILE, PAGE_FILE = "report.json", "report.md", "report.html"
_Named = TypeVar("_Named", Table, FigureData)


@dataclass(frozen=True, kw_only=True)
class DataSetReport:
    """What the report says about the runs of one data set; `unlike` is in what they differ beside the methods."""

    title: str
    headlines: tuple[str, ...]
    unlike: tuple[str, ...]
    experiments: tuple[Experiment, ...]
    tables: tuple[Table, ...]
    figures: tuple[FigureData, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All numbers of a report. Every output is made from this; the page also shows pictures of the runs' images."""

    data_sets: tuple[DataSetReport, ...]
    warnings: tuple[str, ...]


def report_runs(paths: Iterable[Path], out: Path) -> None:
    """Write the report of these runs to the folder `out`, and print its warnings and its tables of corruptions.

    Raises:
        InputError: No run can be reported, or the folder cannot be written.
    """
    remove_leftovers(out)
    check_out(out)  # before the work, and again when writing
    publish_report(make_report(paths), out)


def publish_report(report: Report, out: Path) -> None:
    """Write a report to the folder `out`, and print its warnings and its tables of corruptions.

    Raises:
        InputError: The folder cannot be written.
    """
    for warning in report.warnings[:MOST_OPEN]:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    if (more := len(report.warnings) - MOST_OPEN) > 0:
        print(f"warning: {more} more, in {out / PAGE_FILE}", file=sys.stderr)
    for data_set in report.data_sets:
        for line in data_set.unlike:
            print(f"warning: {data_set.title}: the runs differ: {printable(line)}", file=sys.stderr)
    write_report(report, out)
    for data_set in report.data_sets:
        for line in data_set.headlines:
            console.print(f"{data_set.title}: {printable(line)}")
        for group in by_network(data_set.experiments):
            for part in narrow_tables(corruption_tables(group)[0], console.width):
                console.print(to_console(part))
    console.print(f"written to {out / PAGE_FILE}", soft_wrap=True)


def make_report(paths: Iterable[Path]) -> Report:
    """Read the runs and compute what the report shows.

    Raises:
        InputError: No run can be reported.
    """
    runs, warnings = read_runs(paths)
    experiments, copies = group_experiments(runs)
    warnings += copies
    data_sets = []
    table_names, figure_names = set[str](), set[str]()
    for data, group in itertools.groupby(experiments, key=lambda experiment: experiment.data):
        members = tuple(group)
        figures, notes = make_figures(members)
        warnings += [*notes, *lacking(members)]
        data_sets.append(
            DataSetReport(
                title=data_title(data),
                headlines=tuple(headlines(members)),
                unlike=tuple(unlike(members)),
                experiments=members,
                tables=_with_own_names((*make_tables(members), *more_tables(members)), table_names),
                figures=_with_own_names(figures, figure_names),
            )
        )
    shown = (name for item in experiments for name in (item.label, item.network, *item.measured))
    return Report(data_sets=tuple(data_sets), warnings=(*warnings, *note_on_boxes(shown)))


def _with_own_names(items: Iterable[_Named], taken: set[str]) -> tuple[_Named, ...]:
    """The same; one whose name is taken gets the first free one of NAME_2, NAME_3 ... All names are added to `taken`.

    Names of data sets, networks and methods may differ only in characters that no file name has.
    """
    named = []
    for item in items:
        names = itertools.chain([item.name], (f"{item.name}_{number}" for number in itertools.count(2)))
        free = next(name for name in names if name not in taken)
        taken.add(free)
        named.append(replace(item, name=free))
    return tuple(named)


def write_report(report: Report, out: Path) -> None:
    """Write the folder `out`: report.html, report.md, report.json, tables/, figures/. It appears whole or not at all.

    An older report at `out` is replaced. Nothing else is ever overwritten.

    Raises:
        InputError: `out` holds something other than a report, or cannot be written.
    """
    check_out(out)
    drawn: dict[str, bytes] = {}
    try:
        with replace_folder(out) as folder:
            for data_set in report.data_sets:
                for table in data_set.tables:
                    for ending, render in TABLE_FORMATS.items():
                        write_text(folder / "tables" / f"{table.name}.{ending}", render(table))
                for figure in data_set.figures:
                    for ending, content in to_files(figure).items():
                        write_bytes(folder / "figures" / f"{figure.name}.{ending}", content)
                        if ending == "svg":
                            drawn[figure.name] = content
            write_text(folder / PAGE_FILE, to_page(report.data_sets, report.warnings, drawn, out))
            write_text(folder / TEXT_FILE, to_text(report))
            write_json(folder / DATA_FILE, to_data(report))
    except OSError as error:
        raise InputError(
            f"out: {out} cannot be written ({error.strerror or error}); nothing there has changed. Name another --out."
        ) from error


def check_out(out: Path) -> None:
    """Check that `out` is free, or holds a report and nothing else, and that it can be written.

    Raises:
        InputError: It holds something else, or cannot be written.
    """
    parent = Path(os.path.realpath(out)).parent  # that of "." is not "."
    check_writable(out, parent)
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; expected a new folder, or one that holds an older report.")
    check_writable(out, out)
    known: set[str] | None = None
    with names_locked(parent), suppress(OSError, ValueError, KeyError, TypeError):  # another report may appear here
        present = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
        if not present:
            return
        known = set(json.loads((out / DATA_FILE).read_text(encoding="utf-8"))["files"])
    if known is None:
        raise InputError(
            f"out: {out} is not empty, and it holds no older report ({DATA_FILE}). Nothing is overwritten; name another"
            " --out."
        )
    foreign = sorted(present - known)
    if foreign:
        raise InputError(
            f"out: {out} holds {foreign[0]}, which does not belong to the report there and would be lost. Move it, or"
            " name another --out."
        )


def files(report: Report) -> list[str]:
    """The paths of all files of the report, relative to its folder."""
    names = [DATA_FILE, TEXT_FILE, PAGE_FILE]
    for data_set in report.data_sets:
        names += [f"tables/{table.name}.{ending}" for table in data_set.tables for ending in TABLE_FORMATS]
        names += [f"figures/{figure.name}.{ending}" for figure in data_set.figures for ending in FIGURE_FORMATS]
    return sorted(names)


def to_data(report: Report) -> dict[str, Any]:
    """All that the report shows, as strict JSON values. Accuracies and errors are fractions in 0..1."""
    return {
        "format_version": FORMAT_VERSION,
        "fastmagn": __version__,
        "warnings": list(report.warnings),
        "data_sets": [
            {
                "name": data_set.experiments[0].data,
                "title": data_set.title,
                "headlines": list(data_set.headlines),
                "unlike": list(data_set.unlike),
                "runs": [
                    {"label": experiment.label} | run_data(run)
                    for experiment in data_set.experiments
                    for run in experiment.runs
                ],
                "tables": [table_data(table) for table in data_set.tables],
                "figures": [asdict(figure) | {"series": list(figure.series)} for figure in data_set.figures],
            }
            for data_set in report.data_sets
        ],
        "files": files(report),
    }


def table_data(table: Table) -> dict[str, Any]:
    """A table as JSON values. A cell has its mean, spread, number of runs, the paper's number and the difference."""
    columns = [column._asdict() for column in table.columns]
    rows = [
        {
            "labels": list(row.labels),
            "cells": [cell and cell._asdict() | {"difference": cell.difference} for cell in row.cells],
        }
        for row in table.rows
    ]
    return asdict(table) | {"row_headers": list(table.row_headers), "columns": columns, "rows": rows}


def run_data(run: FinishedRun) -> dict[str, Any]:
    """What the report says about one run."""
    return {
        "run": str(run.path),
        "method": run.method,
        **({"weights_file": run.weights.file} if run.weights else {}),
        "network": run.network,
        "seed": run.seed,
        "num_images": run.num_images,
        "clean_accuracy": run.clean_accuracy,
        "mca": {name: run.mca(members) for name, members in sets_to_show(run.corruption_accuracy).items()},
        "corruption_accuracy": {name: list(values) for name, values in run.corruption_accuracy.items()},
        "rms_calibration_error": run.rms,
        **run.measures,
        "images_per_s": run.images_per_s,
        **{name: entry for name, entry in run.protocols._asdict().items() if entry is not None},
        "command": command(run),
        "environment": run.environment,
        "config": run.config,
    }


def to_text(report: Report) -> str:
    """report.md: the tables and figures of each data set, then how its runs were made."""
    parts = ["# Robustness report"]
    if report.warnings:
        parts.append("## Left out\n\n" + "\n".join(f"- {escape_markdown(line)}" for line in report.warnings))
    for data_set in report.data_sets:
        parts += [f"## {escape_markdown(data_set.title)}", *map(escape_markdown, data_set.headlines)]
        if data_set.unlike:
            lines = "\n".join(f"- {escape_markdown(line)}" for line in data_set.unlike)
            parts += [f"**{UNLIKE}**", lines]
        for table in data_set.tables:
            parts += [
                f"### {escape_markdown(table.title)}",
                to_markdown(table).rstrip(),
                escape_markdown(table.caption),
            ]
        for figure in data_set.figures:
            title = escape_markdown(figure.title)
            picture = f"![{title}](figures/{figure.name}.png)"
            parts += [f"### {title}", picture, escape_markdown(figure.caption)]
        parts += [f"### Runs on {escape_markdown(data_set.title)}", _runs_table(data_set.experiments)]
        commands = [command(run) for experiment in data_set.experiments for run in experiment.runs]
        parts += ["Commands that repeat them (the config.yaml of a run's folder says the same):"]
        parts += ["```\n" + "\n".join(commands) + "\n```"]
    parts.append(
        "`tables/` holds each table as CSV and LaTeX too, and `figures/` each figure as SVG. `report.json` holds all "
        "numbers, as fractions, and the whole configuration and environment of each run."
    )
    return "\n\n".join(parts) + "\n"


def _runs_table(experiments: Sequence[Experiment]) -> str:
    """A row for each run: its folder, what it is, and what it was made with."""
    header, *rows = runs_table(experiments)
    lines = [header, ("---",) * len(header), *(tuple(map(escape_markdown, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

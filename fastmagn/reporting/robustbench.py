"""Runs in the shape of RobustBench's leaderboards of common corruptions (F. Croce et al., NeurIPS 2021 datasets track).

    model_info/DATASET/corruptions/ID.json                  an entry, with the keys of that project's files
    model_info/DATASET/corruptions/unaggregated_results.csv accuracies by corruption and severity, a row for each entry
    leaderboard.md                                          the entries as that project's tables show them
    report.json                                             all entries, and the names of these files

The entries are for a person to complete: link, paper, authors and venue are not known here.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastmagn import __version__
from fastmagn.config.corruption_sets import ALL_SEVERITIES
from fastmagn.config.text import escape_markdown
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES
from fastmagn.errors import InputError, printable
from fastmagn.machine.console import console
from fastmagn.machine.files import replace_folder, write_json, write_text
from fastmagn.machine.leftovers import remove_leftovers
from fastmagn.methods.table import is_method
from fastmagn.reporting.document import DATA_FILE, FORMAT_VERSION, check_out
from fastmagn.reporting.names import file_name, method_title, network_title
from fastmagn.reporting.runs import FinishedRun, read_runs
from fastmagn.reporting.weights import named_method

TABLE_FILE, CELLS_FILE = "leaderboard.md", "unaggregated_results.csv"
TO_FILL_IN = ("link", "name", "authors", "venue")
_TEST_IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 50_000}
_C15 = CORRUPTION_SETS["c15"]


class Entry(NamedTuple):
    """A run as an entry: its name among the models, what its file holds, and the run."""

    model_id: str
    info: dict[str, Any]
    run: FinishedRun


def report_robustbench(paths: Iterable[Path], out: Path) -> None:
    """Write the runs to the folder `out` in RobustBench's shape, and print what is left out and what to fill in.

    Raises:
        InputError: No run can be an entry, or the folder cannot be written.
    """
    remove_leftovers(out)
    check_out(out)
    runs, warnings = read_runs(paths)
    entries, left_out = make_entries(runs)
    for warning in (*warnings, *left_out):
        print(f"warning: {printable(warning)}", file=sys.stderr)
    if not entries:
        raise InputError("RUN: no run can be an entry of RobustBench. Nothing is left to report.")
    files = to_files(entries)
    try:
        with replace_folder(out) as folder:
            for name, text in files.items():
                write_text(folder / name, text)
            models = [{"model_id": entry.model_id, "run": str(entry.run.path)} | entry.info for entry in entries]
            whole = {"format_version": FORMAT_VERSION, "fastmagn": __version__, "format": "robustbench"}
            write_json(folder / DATA_FILE, whole | {"models": models, "files": sorted([*files, DATA_FILE])})
    except OSError as error:
        raise InputError(
            f"out: {out} cannot be written ({error.strerror or error}); nothing there has changed. Name another --out."
        ) from error
    console.print(f"fill in {', '.join(TO_FILL_IN)} of each entry before you submit it", soft_wrap=True)
    console.print(f"written to {out / TABLE_FILE}", soft_wrap=True)


def make_entries(runs: Iterable[FinishedRun]) -> tuple[list[Entry], list[str]]:
    """The runs that can be entries, the most robust first in each data set, and a line for each that cannot."""
    entries: list[Entry] = []
    left_out = []
    for run in runs:
        data, mca = _data_set(run), run.mca(_C15)
        if data is None:
            left_out.append(f"{run.path}: {run.data} is not a data set of RobustBench (cifar10, cifar100, imagenet).")
        elif mca is None:
            is_few = run.fields["eval.severities"] != ALL_SEVERITIES
            remedy = "--eval.corruption_set c15" + f" --eval.severities {ALL_SEVERITIES}" * is_few
            left_out.append(f"{run.path}: lacks a corruption or a severity of c15. Measure it with {remedy}.")
        else:
            of_run = [] if run.weights else [f"seed{run.seed}"]
            name = file_name(named_method(run.method), run.network, *of_run)
            again = sum(entry.model_id.partition("__")[0] == name for entry in entries)
            entries.append(Entry(f"{name}__{again + 1}" if again else name, _info(run, data, mca), run))
    entries.sort(key=lambda entry: (entry.info["dataset"], -(entry.run.mca(_C15) or 0), entry.model_id))
    return entries, [f"{line} Left out." for line in left_out]


def _data_set(run: FinishedRun) -> str | None:
    if run.measures.get("mce_alexnet") is not None:  # measured on ImageNet-C only
        return "imagenet"
    return run.data if run.data in ("cifar10", "cifar100") else None


def _info(run: FinishedRun, data: str, mca: float) -> dict[str, Any]:
    """What the entry's file holds; accuracies are texts, in per cent with two decimals."""
    settings, is_ours = run.config.get("eval", {}), is_method(run.method)
    passes = (settings.get("rse_draws", 1) if run.method == "rse" else 1) * (2 if settings.get("test_time_flip") else 1)
    starts_from = run.config.get("model", {}).get("weights")
    notes = []
    if run.num_images != _TEST_IMAGES[data]:
        notes.append(f"Measured on {run.num_images:,} of {_TEST_IMAGES[data]:,} test images.")
    if not run.are_published:
        notes.append("The corruptions were made by fastmagn, with the published parameters.")
    if starts_from is not None:
        notes.append(f"Training started from the weights {Path(str(starts_from)).name}.")
    info = {
        "link": "",
        "name": method_title(run.method),
        "authors": "",
        "additional_data": False if is_ours and starts_from is None else None,
        "number_forward_passes": passes,
        "dataset": data,
        "venue": "",
        "architecture": network_title(run.network),
        "eps": None,
        "clean_acc": _per_cent(run.clean_accuracy),
        "reported": "",
        "corruptions_acc": _per_cent(mca),
    }
    if data == "imagenet":
        info["corruptions_mce"] = _per_cent(run.measures["mce_alexnet"])
    return info | ({"footnote": " ".join(notes)} if notes else {})


def _per_cent(fraction: float) -> str:
    return str(round(100 * fraction, 2))


def to_files(entries: Sequence[Entry]) -> dict[str, str]:
    """The text of each file but report.json, by its path in the folder."""
    files = {TABLE_FILE: _to_table(entries)}
    for data in dict.fromkeys(entry.info["dataset"] for entry in entries):
        members, folder = (
            [entry for entry in entries if entry.info["dataset"] == data],
            f"model_info/{data}/corruptions",
        )
        files[f"{folder}/{CELLS_FILE}"] = _to_cells(members)
        for entry in members:
            files[f"{folder}/{entry.model_id}.json"] = json.dumps(entry.info, indent=2, ensure_ascii=False) + "\n"
    return files


def _to_table(entries: Sequence[Entry]) -> str:
    """A section for each data set, with a row for each entry."""
    header = ("#", "Model ID", "Paper", "Clean accuracy", "Robust accuracy", "Architecture", "Venue")
    parts = []
    for data in dict.fromkeys(entry.info["dataset"] for entry in entries):
        members = [entry for entry in entries if entry.info["dataset"] == data]
        rows = [
            (
                *(str(place), entry.model_id, entry.info["name"], f"{entry.info['clean_acc']}%"),
                *(
                    f"{entry.info['corruptions_acc']}%",
                    entry.info["architecture"],
                    entry.info["venue"] or "Unpublished",
                ),
            )
            for place, entry in enumerate(members, start=1)
        ]
        lines = [header, (":---:", "---", "---", ":---:", ":---:", ":---:", ":---:"), *rows]
        table = [f"| {' | '.join(map(escape_markdown, line) if line in rows else line)} |" for line in lines]
        notes = [
            f"{escape_markdown(entry.model_id)}: {escape_markdown(entry.info['footnote'])}"
            for entry in members
            if "footnote" in entry.info
        ]
        parts.append("\n".join([f"## {data}, common corruptions", "", *table, *(["", *notes] if notes else [])]))
    return "\n\n".join(parts) + "\n"


def _to_cells(entries: Sequence[Entry]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *(name for name in _C15 for _ in SEVERITIES)])
    writer.writerow(["", *(severity for _ in _C15 for severity in SEVERITIES)])
    for entry in entries:
        writer.writerow([entry.model_id, *(value for name in _C15 for value in entry.run.corruption_accuracy[name])])
    return text.getvalue()

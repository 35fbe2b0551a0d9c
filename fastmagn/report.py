"""python -m fastmagn.report: a page, tables and figures of finished runs, beside the paper's numbers.

python -m fastmagn.report RUN [RUN ...] --out DIR [--format robustbench]
"""

import os
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from fastmagn.config.called import command
from fastmagn.config.command_line import add_import_option, make_parser, parse
from fastmagn.machine.command import run_command
from fastmagn.runs.code import warn_if_code_changed


def parse_arguments(arguments: list[str]) -> dict[str, Any]:
    """The runs (`run`), the report's folder (`out`) and its `format`.

    Raises:
        InputError: An argument is unknown or missing.
    """
    return parse(command_parser(), arguments)


def command_parser() -> ArgumentParser:
    """The parser of the command's arguments."""
    parser = make_parser(
        command("report"),
        "Make a report of finished runs: a page (report.html), tables (Markdown, CSV, LaTeX) and figures (PNG, SVG). "
        "It shows accuracy by corruption, mCA, calibration and sensitivity, beside the paper's numbers where there are "
        "any. Runs that differ only in their seed share a column, with their spread. Each data set has its own tables.",
    )
    parser.add_argument(
        "run",
        nargs="+",
        type=Path,
        help="A run folder, or a results file in one, such as RUN/evaluation.json. A warning names each run that "
        "cannot be read; it is left out.",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="Folder of the report. An older report there is replaced."
    )
    parser.add_argument(
        "--format",
        type=Literal["page", "robustbench"],
        default="page",
        help="page: the report. robustbench: a JSON file for each run with the keys of RobustBench's leaderboards of "
        "common corruptions, and a table of them.",
    )
    add_import_option(parser)
    return parser


def main(arguments: list[str]) -> int:
    values = parse_arguments(arguments)
    if values["format"] == "robustbench":
        from fastmagn.reporting.robustbench import report_robustbench as report  # here, as it imports PyTorch
    else:
        from fastmagn.reporting.document import report_runs as report

    for run in values["run"]:
        warn_if_code_changed(run if os.path.isdir(run) else run.parent)
    report(values["run"], values["out"])
    return 0


if __name__ == "__main__":
    run_command(main)

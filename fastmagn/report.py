"""python -m fastmagn.report: a page, tables and figures of finished runs, beside the paper's numbers.

python -m fastmagn.report RUN [RUN ...] --out DIR
"""

import sys
from argparse import ArgumentError
from pathlib import Path

from jsonargparse import ArgumentParser

from fastmagn.errors import EXIT_CODES, InputError, printable
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.reporting.document import PAGE_FILE, check_out, make_report, write_report
from fastmagn.reporting.formats import narrow_tables, to_console
from fastmagn.reporting.tables import by_network, corruption_tables


def parse_arguments(arguments: list[str]) -> tuple[list[Path], Path]:
    """The runs and the report's folder.

    Raises:
        InputError: An unknown or missing argument.
    """
    parser = ArgumentParser(
        prog="python -m fastmagn.report",
        description="A page (report.html), tables (Markdown, CSV, LaTeX) and figures (PNG, SVG) of finished runs: "
        "accuracy by corruption, mCA, calibration and sensitivity, beside the paper's numbers where it has them. Runs "
        "that differ only in their seed are one column, with their spread; each data set has its own tables.",
        epilog=EXIT_CODES,
        exit_on_error=False,
    )
    parser.add_argument(
        "run",
        nargs="+",
        type=Path,
        help="a run folder, or a results file in one, such as RUN/evaluation.json; what cannot be read is left out",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the report; a report that is there is replaced"
    )
    try:
        values = parser.parse_args(arguments)
    except ArgumentError as error:
        raise InputError(" ".join(str(error).split())) from error
    return values.run, values.out


def main(arguments: list[str]) -> int:
    paths, out = parse_arguments(arguments)
    check_out(out)  # before the work, and again when writing
    report = make_report(paths)
    for warning in report.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    write_report(report, out)
    for data_set in report.data_sets:
        for group in by_network(data_set.experiments):
            for part in narrow_tables(corruption_tables(group)[0], console.width):
                console.print(to_console(part))
    console.print(f"written to {out / PAGE_FILE}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    run_command(main)

"""python -m fastmagn.report: a page, tables and figures of finished runs, beside the paper's numbers.

python -m fastmagn.report RUN [RUN ...] --out DIR
"""

from pathlib import Path

from fastmagn.config.command_line import make_parser, parse
from fastmagn.machine.command import run_command


def parse_arguments(arguments: list[str]) -> tuple[list[Path], Path]:
    """The runs and the report's folder.

    Raises:
        InputError: An argument is unknown or missing.
    """
    parser = make_parser(
        "python -m fastmagn.report",
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
    values = parse(parser, arguments)
    return values["run"], values["out"]


def main(arguments: list[str]) -> int:
    paths, out = parse_arguments(arguments)
    from fastmagn.reporting.document import report_runs  # here, as it imports PyTorch

    report_runs(paths, out)
    return 0


if __name__ == "__main__":
    run_command(main)

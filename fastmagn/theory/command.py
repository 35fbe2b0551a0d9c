"""The command `python -m fastmagn.theory`: its arguments and what it prints."""

from pathlib import Path

from jsonargparse import ArgumentParser

from fastmagn.config.called import command
from fastmagn.config.command_line import add_import_option, make_parser, of_kind, parse
from fastmagn.machine.console import console
from fastmagn.theory.config import GeometryConfig, TheoryConfig


def parse_arguments(arguments: list[str]) -> tuple[list[Path], TheoryConfig, GeometryConfig]:
    """The run folders, the images and the report's folder, and what is measured.

    Raises:
        InputError: An unknown or missing argument, a value of another type or out of its range.
    """
    values = parse(command_parser(), arguments)
    return values["runs"], of_kind(TheoryConfig, values), of_kind(GeometryConfig, values)


def command_parser() -> ArgumentParser:
    """The parser of the command's arguments."""
    parser = make_parser(
        command("theory"),
        "Measure Fisher information, loss gradient, curvature and local loss deviation of trained runs.",
        TheoryConfig,
        GeometryConfig,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of runs of one data set.")
    add_import_option(parser)
    return parser


def main(arguments: list[str]) -> int:
    run_dirs, config, geometry = parse_arguments(arguments)
    from fastmagn.machine.hardware import keep_memory_on_cpu  # here, so that --help does not wait for PyTorch
    from fastmagn.theory.runs import measure_runs

    keep_memory_on_cpu(config.device)
    console.print(measure_runs(run_dirs, config, geometry), soft_wrap=True)
    console.print(f"written to {config.out}", soft_wrap=True)
    return 0

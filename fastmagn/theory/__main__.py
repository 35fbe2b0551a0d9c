"""python -m fastmagn.theory: the geometry of the loss near test images, of several trained runs.

python -m fastmagn.theory RUN [RUN ...] --out DIR [--num_images N] [--seed S] ...
"""

import dataclasses
from argparse import ArgumentError
from pathlib import Path

from jsonargparse import ArgumentParser

from fastmagn.errors import EXIT_CODES, InputError
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console
from fastmagn.theory.config import GeometryConfig, TheoryConfig

_PROG = "python -m fastmagn.theory"


def parse_arguments(arguments: list[str]) -> tuple[list[Path], TheoryConfig, GeometryConfig]:
    """The run folders, the images and the report's folder, and what is measured.

    Raises:
        InputError: An unknown or missing argument, a value of another type or out of its range.
    """
    parser = ArgumentParser(
        prog=_PROG,
        description="Measure Fisher information, loss gradient, curvature and local loss deviation of trained runs.",
        epilog=EXIT_CODES,
        exit_on_error=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of runs of one data set.")
    parser.add_class_arguments(TheoryConfig)
    parser.add_class_arguments(GeometryConfig)
    try:
        values = vars(parser.instantiate(parser.parse_args(arguments)))
    except ArgumentError as error:
        raise InputError(" ".join(str(error).split())) from error
    configs = [
        kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)})
        for kind in (TheoryConfig, GeometryConfig)
    ]
    return [Path(run) for run in values["runs"]], *configs


def main(arguments: list[str]) -> int:
    run_dirs, config, geometry = parse_arguments(arguments)
    from fastmagn.theory.runs import measure_runs  # here, so that --help does not wait for PyTorch

    console.print(measure_runs(run_dirs, config, geometry), soft_wrap=True, markup=False)
    console.print(f"written to {config.out}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    run_command(main)

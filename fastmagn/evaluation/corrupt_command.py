"""The command `python -m fastmagn.corrupt`: its arguments and what it prints."""

import sys
import time

from jsonargparse import ArgumentParser

from fastmagn.config.called import command
from fastmagn.config.command_line import add_import_option, make_parser, of_kind, parse
from fastmagn.config.own_code import explained
from fastmagn.corruptions import SEVERITIES
from fastmagn.errors import EXIT_CODES, counted
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.machine.console import console

EXIT_DIFFERENT = 1


def parse_arguments(arguments: list[str]) -> tuple[CorruptConfig, bool]:
    """The config, and whether the set is to be verified and not made.

    Raises:
        InputError: An unknown or missing argument, a value of another type or out of its range.
    """
    values = parse(command_parser(), arguments)
    with explained(values["import"]):
        return of_kind(CorruptConfig, values), values["verify"]


def command_parser() -> ArgumentParser:
    """The parser of the command's arguments."""
    parser = make_parser(
        command("corrupt"),
        "Make a -C set (the 19 common corruptions or C-bar's ten, at 5 severities) of any test images.",
        epilog=EXIT_CODES + f" With --verify, {EXIT_DIFFERENT}: the set is not as it was made.",
    )
    parser.add_argument("--config", action="config", help="YAML file of these fields; options override it.")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="Make nothing; check out against its manifest and, if dataset or data_dir is given, its test images.",
    )
    parser.add_class_arguments(CorruptConfig)
    add_import_option(parser)
    return parser


def main(arguments: list[str]) -> int:
    config, verify = parse_arguments(arguments)
    return _verify(config) if verify else _make(config)


def _make(config: CorruptConfig) -> int:
    from fastmagn.evaluation.corrupted_set import make_corrupted_set

    start = time.perf_counter()
    manifest = make_corrupted_set(config, _print_line)
    seconds = time.perf_counter() - start
    total = len(manifest["corruptions"]) * len(SEVERITIES) * manifest["num_images"]
    _print_line(
        f"made {counted(total, 'image', ',')} in {seconds:.1f} s, {total / seconds:,.0f} images/s: {config.out}"
    )
    return 0


def _verify(config: CorruptConfig) -> int:
    from fastmagn.data.corrupted.npy import read_manifest
    from fastmagn.evaluation.corrupted_set import verify_corrupted_set

    faults = verify_corrupted_set(config)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        return EXIT_DIFFERENT
    num_files = len(read_manifest(config.out)["files"])
    against = "manifest" if config.dataset is None and config.data_dir is None else "manifest and its test images"
    _print_line(f"{config.out}: {counted(num_files, 'file')}, as made: sizes, SHA-256 and shapes match its {against}")
    return 0


def _print_line(line: str) -> None:
    console.print(line, soft_wrap=True)

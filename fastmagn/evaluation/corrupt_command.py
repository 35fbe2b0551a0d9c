"""The arguments and messages of `python -m fastmagn.corrupt`."""

import sys
import time
import warnings

from fastmagn.config.command_line import make_parser, of_kind, parse, with_bases
from fastmagn.corruptions import SEVERITIES
from fastmagn.data.corrupted.npy import (
    read_manifest,
)
from fastmagn.errors import EXIT_CODES
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set, verify_corrupted_set
from fastmagn.machine.console import console

EXIT_DIFFERENT = 1


def parse_arguments(arguments: list[str]) -> tuple[CorruptConfig, bool]:
    """The config, and whether the set is to be verified and not made.

    Raises:
        InputError: An unknown or missing argument, a value of another type or out of its range.
    """
    parser = make_parser(
        "python -m fastmagn.corrupt",
        "Make a -C set (the 19 common corruptions at 5 severities) of any test images.",
        epilog=EXIT_CODES + f" With --verify, {EXIT_DIFFERENT}: the set is not as it was made.",
    )
    parser.add_argument("--config", action="config", help="YAML file of these fields; later arguments override it.")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="Make nothing; check out against its manifest and, where dataset or data_dir is given, its test images.",
    )
    parser.add_class_arguments(CorruptConfig)
    values = parse(parser, with_bases(arguments))
    return of_kind(CorruptConfig, values), values["verify"]


def main(arguments: list[str]) -> int:
    config, verify = parse_arguments(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        if verify:
            return _print_verdict(config, verify_corrupted_set(config))
        start = time.perf_counter()
        manifest = make_corrupted_set(config, _print_line)
    total, seconds = (
        len(manifest["corruptions"]) * len(SEVERITIES) * manifest["num_images"],
        time.perf_counter() - start,
    )
    _print_line(f"made {total:,} images in {seconds:.1f} s, {total / seconds:,.0f} images/s: {config.out}")
    return 0


def _print_verdict(config: CorruptConfig, faults: list[str]) -> int:
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        return EXIT_DIFFERENT
    manifest = read_manifest(config.out)
    against = "manifest" if config.dataset is None and config.data_dir is None else "manifest and its test images"
    _print_line(f"{config.out}: {len(manifest['files'])} files, as made: sizes, SHA-256 and shapes match its {against}")
    return 0


def _print_line(line: str) -> None:
    console.print(line, soft_wrap=True, markup=False)

"""python -m benchmarks.gallery: make the pictures of the documentation, to the same bytes each time.

    python -m benchmarks.gallery [--out DIR] [--runs RUN RUN ...]

The images are scikit-learn's two photographs. README's picture shows the numbers of NUMBERS (`numbers.py`); with
`--runs` that file is first written from finished runs, of which one is of `standard`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from benchmarks.gallery import augmix, corruptions, headline, methods, operations
from benchmarks.gallery.numbers import NUMBERS, read_numbers, write_numbers
from benchmarks.gallery.strips import save
from fastmagn.config.command_line import OwnOptions
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console

IMAGES = Path(__file__).parents[2] / "docs" / "images"
HEADLINE = "views_and_heat_map"


def main(arguments: list[str]) -> int:
    """Write the pictures, and print what made the views that they show."""
    options = _parse(arguments)
    if options.runs:
        write_numbers(options.runs, NUMBERS)
    for name, picture, text in strips():
        save(picture, options.out / f"{name}.webp")
        if text:
            console.print(f"{name}:\n{text}", soft_wrap=True, markup=False, highlight=False)
    save(headline.headline(*read_numbers(NUMBERS)), options.out / f"{HEADLINE}.webp", quality=headline.QUALITY)
    return 0


def strips() -> Iterator[tuple[str, Image.Image, str]]:
    """The pictures of the galleries, each after its name and before the text that says what made it, if any."""
    for pictures in (corruptions.pictures, operations.pictures):
        yield from ((name, picture, "") for name, picture in pictures())
    yield from augmix.pictures()
    yield from methods.pictures()


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = OwnOptions("python -m benchmarks.gallery", __doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder of the pictures (default: docs/images)")
    parser.add_argument(
        "--runs", type=Path, nargs="+", help="run folders whose accuracies README's picture shows; one is of standard"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)

"""python -m benchmarks.corrupt: compare images/s of every corruption with plain per-image code, in one run.

python -m benchmarks.corrupt [--out FILE.json] [--corruption_set c19|cbar|c19+cbar] [--num_images N] [--size 32|224]
                             [--data_dir DIR] [--repeats R]

The plain code (`plain_corruptions`, `plain_cbar`) computes the same with NumPy, SciPy, scikit-image and Pillow, image
by image on one core; ours uses every core. If OpenCV can be imported, imagecorruptions-imaug itself is timed too, on
sets that it has. It uses ImageNet-C's severities at every size, and reads frost's picture again for each image. All
code gets the same images, but per-image code only the first few of them. Reading images and writing results are not
timed.
"""

import importlib
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from benchmarks.measure import console, seconds, spread, write_result
from benchmarks.plain_cbar import PLAIN_CBAR
from benchmarks.plain_corruptions import PLAIN
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.corruption_sets import set_parts
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES, available_corruptions, corrupt
from fastmagn.corruptions.sets import set_members
from fastmagn.data import load_images
from fastmagn.errors import check
from fastmagn.machine.command import run_command
from fastmagn.machine.environment import found
from fastmagn_kernels.threads import num_threads

SET_IMAGES = 10_000  # in a published set
DEFAULT_IMAGES = {32: 1000, 224: 24}
PLAIN_IMAGES = {32: 50, 224: 2}

Times = dict[str, list[float]]  # corruption -> seconds at each severity
Cell = Callable[[np.ndarray, str, int], object]  # applies a corruption to all images at a severity


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if `--out` is given."""
    parser = OwnOptions("python -m benchmarks.corrupt", __doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument(
        "--num_images", type=int, help="images in each cell (default: 1000, or 24 at 224 px; the real set: 10000)"
    )
    parser.add_argument("--size", type=int, choices=sorted(DEFAULT_IMAGES), default=32, help="side of the images in px")
    parser.add_argument("--corruption_set", default="c19", help="as eval.corruption_set (default: c19)")
    parser.add_argument("--data_dir", type=Path, help="folder that holds cifar-10-batches-py (default: use digits)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of every cell (default: 3)")
    options = parser.parse_args(arguments)
    num_images = DEFAULT_IMAGES[options.size] if options.num_images is None else options.num_images
    check(num_images >= 1, "num_images", num_images, "1 or more")
    check(options.repeats >= 1, "repeats", options.repeats, "1 or more")
    images = load_test_images(options.data_dir, num_images, options.size)
    sample = images[: PLAIN_IMAGES[options.size]]
    set_parts("corruption_set", options.corruption_set)
    members = set_members(options.corruption_set, options.size, options.size)
    names = tuple(name for name in members if name in available_corruptions())
    if len(names) < len(members):
        console.print("frost is left out because its pictures (imagecorruptions-imaug) are not installed")

    codes: dict[str, Cell] = {"": corrupt, "plain_": plain_cell}
    library = find_library() if set(names) <= set(CORRUPTION_SETS["c19"]) else None
    if library is not None:
        codes["library_"] = lambda images, name, severity: library_cell(library, images, name, severity)
    passes: dict[str, list[Times]] = {code: [] for code in codes}
    for code, cell in codes.items():  # compile and fill the caches
        time_pass(cell, images[:1] if code else images[:2], names)
    for _ in range(options.repeats):
        for code, cell in codes.items():
            passes[code].append(time_pass(cell, sample if code else images, names))

    counts = {code: len(sample) if code else len(images) for code in codes}
    measured = summarise(passes, counts)
    print_table(measured, len(images), options.size)
    if options.out:
        settings = {
            "dataset": "cifar10" if options.data_dir else "digits",
            "corruption_set": options.corruption_set,
            "size_px": options.size,
            "num_images": len(images),
            "per_image_codes_num_images": len(sample),
            "repeats": options.repeats,
            "threads": num_threads(),
            "per_image_codes_threads": 1,
            "library": library_versions() if library else None,
        }
        write_result(options.out, "corrupt", settings, measured, torch.device("cpu"))
    return 0


def load_test_images(data_dir: Path | None, num_images: int, size_px: int) -> np.ndarray:
    """Load the first test images of CIFAR-10, or of digits without a folder. Too few images are repeated.

    Returns:
        uint8 [num_images, size, size, 3], resized with Pillow's bicubic filter if the images have another size.
    """
    images = load_images("cifar10" if data_dir else "digits", data_dir or Path()).test_images_u8
    images = images[np.arange(num_images) % len(images)]
    if images.shape[1] == size_px:
        return np.ascontiguousarray(images)
    side = (size_px, size_px)
    return np.stack([np.asarray(Image.fromarray(image).resize(side, Image.Resampling.BICUBIC)) for image in images])


def find_library() -> Any | None:
    """Import imagecorruptions-imaug, which needs OpenCV; return None if either cannot be imported."""
    try:
        return importlib.import_module("imagecorruptions")
    except ImportError:
        return None


def library_versions() -> dict[str, str | None]:
    """Return the versions of the packages that `find_library` found; None for one that does not say it."""
    return {
        "imagecorruptions-imaug": found(metadata.version, "imagecorruptions-imaug"),
        "opencv": getattr(importlib.import_module("cv2"), "__version__", None),
    }


def time_pass(cell: Cell, images: np.ndarray, names: tuple[str, ...]) -> Times:
    """Return how long each corruption of the images takes at each severity, in seconds."""
    return {name: [seconds(partial(cell, images, name, severity)) for severity in SEVERITIES] for name in names}


def plain_cell(images: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Apply one corruption at one severity with the plain code: uint8 like `images`."""
    rng = np.random.default_rng(0)
    code = (PLAIN | PLAIN_CBAR)[name]
    return np.stack([code(image, severity, rng) for image in images])


def library_cell(library: Any, images: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Apply one corruption at one severity with imagecorruptions-imaug: uint8 like `images`."""
    return np.stack([library.corrupt(image, corruption_name=name, severity=severity) for image in images])


def summarise(passes: dict[str, list[Times]], counts: dict[str, int]) -> dict[str, Any]:
    """Compute rates, ratios and totals of repeated passes; a corruption's time is the mean over its severities.

    Args:
        passes: Code ("" is ours, then "plain_", and "library_" if there is one) -> its passes.
        counts: Code -> number of images in a cell.
    """
    corruptions: dict[str, Any] = {name: {} for name in passes[""][0]}
    for name, row in corruptions.items():
        for code, times in passes.items():
            s_per_image = spread([fmean(one[name]) / counts[code] for one in times])
            row[f"{code}s_per_image"] = s_per_image
            row[f"{code}images_per_s"] = 1 / s_per_image["median"]
            if code:
                row[f"{code}ratio"] = row["images_per_s"] / row[f"{code}images_per_s"]
    totals = {code: [sum(map(sum, one.values())) for one in times] for code, times in passes.items()}
    whole: dict[str, Any] = {"cells": len(corruptions) * len(SEVERITIES), "measured_s": spread(totals[""])}
    for code, spent in totals.items():
        whole[f"{code}10000_images_s"] = median(spent) / counts[code] * SET_IMAGES
        if code:
            whole[f"{code}ratio"] = whole[f"{code}10000_images_s"] / whole["10000_images_s"]
    return {"corruptions": corruptions, "set": whole}


def print_table(measured: dict[str, Any], num_images: int, size_px: int) -> None:
    """Print the rates, and the time for the whole set."""
    whole = measured["set"]
    others = [code for code in ("plain_", "library_") if f"{code}ratio" in whole]
    table = Table(title=f"images/s, {num_images} images of {size_px} x {size_px}")
    table.add_column("corruption")
    for column in ("ours", "lowest to highest", *(f"{code[:-1]}{what}" for code in others for what in ("", " ratio"))):
        table.add_column(column, justify="right")
    for name, row in measured["corruptions"].items():
        slowest, fastest = row["s_per_image"]["highest"], row["s_per_image"]["lowest"]
        cells = [f"{row['images_per_s']:,.0f}", f"{1 / slowest:,.0f} to {1 / fastest:,.0f}"]
        for code in others:
            cells += [f"{row[f'{code}images_per_s']:,.0f}", f"{row[f'{code}ratio']:.1f}"]
        table.add_row(name, *cells)
    console.print(table)
    spent = whole["measured_s"]
    console.print(
        f"{whole['cells']} cells x {num_images} images: {spent['median']:.1f} s ({spent['lowest']:.1f} to "
        f"{spent['highest']:.1f}); x {SET_IMAGES:,}: {whole['10000_images_s']:.1f} s",
        soft_wrap=True,
    )
    for code in others:
        other_s, ratio = whole[f"{code}10000_images_s"], whole[f"{code}ratio"]
        console.print(f"{code[:-1]} code, extrapolated from its sample: {other_s:,.0f} s, {ratio:.1f} times as long")


if __name__ == "__main__":
    run_command(main)

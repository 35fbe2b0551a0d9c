"""Reads -C sets of image files in the published layout of ImageNet-C (Hendrycks and Dietterich, ICLR 2019).

The layout is DIR/CORRUPTION/SEVERITY/CLASS/IMAGE, such as DIR/fog/3/n01440764/ILSVRC2012_val_00000293.JPEG, with any
corruptions and some of the severities 1 to 5. Several corruptions may have a folder of their own,
DIR/GROUP/CORRUPTION, as each of the published archives of ImageNet-C has (noise.tar, blur.tar, ...). The code that made
ImageNet-C-bar names the five severities by its own levels, such as 2.35: these are 1 to 5 in ascending order.
"""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from fastmagn.corruptions import CORRUPTIONS, SEVERITIES
from fastmagn.corruptions.sets import in_order
from fastmagn.data.files.listing import class_folders, image_names
from fastmagn.data.files.on_demand import LazyImages
from fastmagn.errors import InputError, counted, some

Cells = dict[int, Path]  # severity -> the folder of its classes

_NUMBER = re.compile(r"\d+(\.\d+)?")


def stored_trees(folder: Path, wanted: Collection[str] | None = None) -> dict[str, Cells]:
    """The corruptions that a set holds as image files, in the registry's order; empty for a set of .npy files.

    Args:
        folder: The folder of the set.
        wanted: The corruptions that are checked; None means all.

    Raises:
        InputError: A corruption's folder has other severities than 1 to 5, or a known corruption's has none; or there
            is a corruption in two places.
    """
    found: dict[str, Cells] = {}

    def is_wanted(place: Path) -> bool:
        return wanted is None or place.name in wanted

    def cells_of(place: Path) -> Cells:
        return _cells(place, is_checked=is_wanted(place))

    for place in _subfolders(folder):
        cells = cells_of(place)
        is_group = not cells and place.name not in CORRUPTIONS
        groups = [(inner, cells_of(inner)) for inner in _subfolders(place)] if is_group else []
        for corruption, inside in [(place, cells), *groups]:
            if not inside:
                continue
            if corruption.name in found and is_wanted(corruption):
                other = next(iter(found[corruption.name].values())).parent
                raise InputError(f"{corruption}: also in {other}; expected each corruption once. Remove one of them.")
            found[corruption.name] = inside
        if not cells and place.name in CORRUPTIONS and is_wanted(place):
            raise InputError(f"{place}: has no severities; expected folders 1 to 5 in it, or some of them.")
    return {name: found[name] for name in in_order(found)}


def _cells(place: Path, is_checked: bool) -> Cells:
    """The folders of a corruption's severities; empty if it has none."""
    numbers = sorted((float(path.name), path) for path in _subfolders(place) if _NUMBER.fullmatch(path.name))
    if len(numbers) == len(SEVERITIES) and any("." in path.name for _, path in numbers):
        return {severity: path for severity, (_, path) in zip(SEVERITIES, numbers, strict=True)}
    foreign = [path.name for _, path in numbers if path.name not in map(str, SEVERITIES)]
    if foreign and is_checked:
        raise InputError(
            f"{place}: has severities {some(foreign)}; expected folders 1 to 5 in it, or some of them, or five others"
            " with a decimal point."
        )
    return {int(path.name): path for _, path in numbers if path.name not in foreign}


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in Path(folder).iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def check_cells(trees: dict[str, Cells], class_names: Sequence[str], test_labels: np.ndarray) -> tuple[str, ...]:
    """Check that a set has every class and image at its severities, before it is measured.

    Images are matched by count: at each severity, each class must have as many images as there are among the test
    images.

    Args:
        trees: From `stored_trees`.
        class_names: The run's K classes; label k is class_names[k].
        test_labels: int64 [M], the labels of all test images, sorted.

    Returns:
        The names of the classes that have test images, in the labels' order, for `open_cell`.

    Raises:
        InputError: A class is missing or unknown, or it has too many or too few images.
    """
    if np.any(np.diff(test_labels) < 0):
        raise InputError(
            "eval.corrupted_dir: got a set of image files, whose images are in the order of their classes; expected a"
            " set of .npy files for test images in another order."
        )
    counts = np.bincount(test_labels, minlength=len(class_names))
    expected = {name: count for name, count in zip(class_names, counts, strict=True) if count}
    for cell in (cell for cells in trees.values() for cell in cells.values()):
        _check_classes(cell, list(expected))
        for class_name, count in expected.items():
            found = len(image_names(cell / class_name))
            if found != count:
                raise InputError(
                    f"{cell / class_name}: holds {counted(found, 'image')}; expected {count}, as many as the test"
                    " set has of this class. Extract the set again, or give the test set (data.dir) that it was made"
                    " of."
                )
    return tuple(expected)


def open_cell(cell: Path, class_names: Sequence[str], image_size: int) -> LazyImages:
    """A cell's images, by class (in the classes' order) and file name; they are read later."""
    folders = [cell / class_name for class_name in class_names]
    # os.path.join, because 50,000 of pathlib's joins take a second.
    paths = [Path(os.path.join(folder, name)) for folder in folders for name in image_names(folder)]
    return LazyImages(paths, image_size)


def _check_classes(cell: Path, class_names: Sequence[str]) -> None:
    found, wanted = set(class_folders(cell)), set(class_names)
    for problem, names in (("lacks", wanted - found), ("has foreign", found - wanted)):
        if names:
            raise InputError(
                f"{cell}: {problem} class folders {some(sorted(names))}; expected the {len(class_names)} classes of the"
                " test images. Extract the set again, or measure a run that was trained on its classes."
            )

"""Reads -C sets of image files in the published layout of ImageNet-C (Hendrycks and Dietterich, ICLR 2019).

The layout is DIR/CORRUPTION/SEVERITY/CLASS/IMAGE, such as DIR/fog/3/n01440764/ILSVRC2012_val_00000293.JPEG. Each of the
published archives (noise.tar, blur.tar, weather.tar, digital.tar, extra.tar) may have its own folder,
DIR/GROUP/CORRUPTION.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fastmagn.corruptions import SEVERITIES
from fastmagn.data.files.listing import class_folders, image_names
from fastmagn.data.files.on_demand import LazyImages
from fastmagn.errors import InputError, some

GROUPS = ("noise", "blur", "weather", "digital", "extra")


def stored_corruptions(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The folder of each of these corruptions that the set holds as image files; empty for a set of .npy files."""
    places = {name: [folder / name, *(folder / group / name for group in GROUPS)] for name in names}
    found = {name: [place for place in candidates if place.is_dir()] for name, candidates in places.items()}
    return {name: present[0] for name, present in found.items() if present}


def check_cells(places: dict[str, Path], class_names: Sequence[str], test_labels: np.ndarray) -> tuple[str, ...]:
    """Check that a set has every severity, class and image, before it is measured.

    Images are matched by count: at each severity, each class must have as many images as there are among the test
    images.

    Args:
        places: From `stored_corruptions`.
        class_names: The run's K classes; label k is class_names[k].
        test_labels: int64 [M], the labels of all test images, sorted.

    Returns:
        The names of the classes that have test images, in the labels' order, for `open_cell`.

    Raises:
        InputError: A severity or a class is missing, a class is unknown, or a class has too many or too few images.
    """
    if np.any(np.diff(test_labels) < 0):
        raise InputError(
            "eval.corrupted_dir: got a set of image files, whose images are in the order of their classes; expected a"
            " set of .npy files for test images in another order."
        )
    counts = np.bincount(test_labels, minlength=len(class_names))
    expected = {name: count for name, count in zip(class_names, counts, strict=True) if count}
    for place in places.values():
        for severity in SEVERITIES:
            cell = place / str(severity)
            _check_classes(cell, list(expected))
            for class_name, count in expected.items():
                found = len(image_names(cell / class_name))
                if found != count:
                    raise InputError(
                        f"{cell / class_name}: holds {found} images; expected {count}, as many as the test set has of"
                        " this class. Extract the set again, or give the test set (data.dir) that it was made of."
                    )
    return tuple(expected)


def open_cell(place: Path, severity: int, class_names: Sequence[str], image_size: int) -> LazyImages:
    """A corruption's images at a severity, by class (in the classes' order) and file name; they are read later."""
    folders = [place / str(severity) / class_name for class_name in class_names]
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

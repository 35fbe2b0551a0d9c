"""`data.name npz`: images and labels in arrays, in an .npz file or in .npy files.

Found are, in this order:

- `data.dir` is a file.npz with `train_images`, `train_labels`, `test_images` and `test_labels`, as MedMNIST has them
  (without test arrays, `val_images` and `val_labels` take their place); or `x_train`, `y_train`, `x_test`, `y_test`, as
  Keras has them.
- DIR/train.npz and DIR/test.npz (or val.npz), each with `images` and `labels`.
- DIR/train_images.npy and so on, or DIR/x_train.npy and so on.
- DIR/NAME.npz, if it is the only .npz file with such arrays.

Where there are both test and val, the val images are not used: `data.num_validation_images` holds out training images,
and a result is one of the test images. K class names may be in the .npz file as the array `class_names`, or in
DIR/class_names.txt, one on each line, beside .npy files. Shape letters: N images, K classes.
"""

from collections.abc import Callable, Container
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from fastmagn.data.array_images import array_set, array_test_set, check_stored, class_labels
from fastmagn.data.arrays import open_array
from fastmagn.data.image_set import ImageSet
from fastmagn.data.npz_file import npz_names, read_npz
from fastmagn.data.published.reading import read_lines
from fastmagn.errors import InputError, MissingSplit, counted, form, some

LAYOUT = (
    "DIR/NAME.npz (or that file itself) with train_images, train_labels, test_images and test_labels, or x_train,"
    " y_train, x_test and y_test; or these as .npy files in DIR; or DIR/train.npz and DIR/test.npz, each with images"
    " and labels; without test arrays, val ones take their place"
)
_PUBLISHED, _KERAS = ("{}_images", "{}_labels"), ("x_{}", "y_{}")
_ALONE = ("images", "labels")
_CLASS_NAMES = "class_names"
_ARRAY_REMEDY = "Save it again with numpy.save."


class _Array(NamedTuple):
    where: str  # for messages
    values: np.ndarray


class _Found(NamedTuple):
    place: Path
    splits: dict[str, tuple[str, str]]  # split -> the names of images and labels
    read: Callable[[str, str], _Array | None]  # (split, name) -> an array; None if it is not there


def load_npz(folder: Path, download: bool) -> ImageSet:
    """The image set in a folder, or in a file.npz; arrays that are not compressed are mapped, and read when used.

    A line says how many images there are, and how they become squares of at least 32 px. `download` is not used.

    Raises:
        InputError: No such arrays are found (MissingSplit), or they are not images and labels.
    """
    found = _find(Path(folder))
    tested, unused = _tested(found)
    train, test = _part(found, "train"), _part(found, tested)
    class_names = _class_names(found, train[1], test[1])
    return array_set("npz", found.place, class_names=class_names, train=train, test=test, also=unused)


def load_npz_test(folder: Path) -> ImageSet:
    """The test images alone, where there are no training images; else as `load_npz`.

    The classes are those of the array `class_names`, else 0..L, where L is the largest label. Mean and standard
    deviation are not known.
    """
    found = _find(Path(folder), has_train=False)
    tested, unused = _tested(found)
    images, labels = _part(found, tested)
    count = int(labels.max()) + 1
    named = found.read(tested, _CLASS_NAMES)
    if named is not None:
        count = max(count, len(named.values) if named.values.ndim == 1 else 0)
    return array_test_set("npz", found.place, class_names=_names(named, count), test=(images, labels), also=unused)


def _tested(found: _Found) -> tuple[str, str]:
    """The split that results are of, and what to say of another one."""
    tested = "test" if "test" in found.splits else "val"
    return tested, "; val is not used" if tested == "test" and "val" in found.splits else ""


def _find(place: Path, has_train: bool = True) -> _Found:
    """Where the arrays are: of training and test images, or, without `has_train`, of test images alone."""
    if place.is_file():
        return _of_file(place, has_train) or _refuse(place, f"{_listed(npz_names(place))} in it")
    if not place.is_dir():
        raise InputError(f"data.dir: {place}: no such file or folder; expected {LAYOUT}.")
    files = sorted(path for path in place.iterdir() if path.suffix in (".npz", ".npy") and path.is_file())
    names = [path.name for path in files]
    splits = {split: _ALONE for split in ("train", "test", "val") if f"{split}.npz" in names}
    if has_train and "train" in splits and len(splits) > 1:
        return _Found(place, splits, partial(_read_of_splits, place))
    alone = {split: kinds for split, kinds in splits.items() if _ALONE[0] in npz_names(place / f"{split}.npz")}
    if not has_train and alone and "train" not in alone:
        return _Found(place, alone, partial(_read_of_splits, place))
    arrays = {path.stem for path in files if path.suffix == ".npy"}
    splits = _splits(arrays, has_train)
    if splits:
        return _Found(place, splits, partial(_read_npy, place))
    of_files = [found for path in files if path.suffix == ".npz" and (found := _of_file(path, has_train))]
    if len(of_files) > 1:
        raise InputError(
            f"data.dir: {place} has {len(of_files)} image sets, {some(found.place.name for found in of_files)};"
            f" expected one. Name it: --data.dir {of_files[0].place}."
        )
    return of_files[0] if of_files else _refuse(place, _listed(names))


def _listed(names: list[str]) -> str:
    return some(names, 6) or "nothing"


def _refuse(place: Path, found: str) -> NoReturn:
    raise MissingSplit(f"data.dir: looked for arrays of images in {place}, found {found}; expected {LAYOUT}.")


def _of_file(path: Path, has_train: bool) -> _Found | None:
    splits = _splits(npz_names(path), has_train)
    return _Found(path, splits, partial(_read_of_file, path)) if splits else None


def _splits(names: Container[str], has_train: bool) -> dict[str, tuple[str, str]]:
    """The names of images and labels of each split, in the naming that has the wanted images; empty if none has."""
    for images, labels in (_PUBLISHED, _KERAS):
        splits = {split: (images.format(split), labels.format(split)) for split in ("train", "test", "val")}
        present = {split: kinds for split, kinds in splits.items() if kinds[0] in names}
        if ("train" in present) == has_train and len(present) > has_train:
            return present
    return {}


def _read_of_file(path: Path, split: str, name: str) -> _Array | None:
    return _array_of(path, name)


def _read_of_splits(folder: Path, split: str, name: str) -> _Array | None:
    return _array_of(folder / f"{split}.npz", name)


def _array_of(path: Path, name: str) -> _Array | None:
    arrays = read_npz(path, (name,))
    return _Array(f"{path}: {name}", arrays[name]) if name in arrays else None


def _read_npy(folder: Path, split: str, name: str) -> _Array | None:
    if name == _CLASS_NAMES:
        path = folder / f"{name}.txt"
        return _Array(str(path), np.array(read_lines(path))) if path.is_file() else None
    path = folder / f"{name}.npy"
    return _Array(str(path), open_array(path, "", _ARRAY_REMEDY)) if path.is_file() else None


def _part(found: _Found, split: str) -> tuple[np.ndarray, np.ndarray]:
    """A split's images, and its labels, int64 [N]."""
    images, labels = [_needed(found, split, name) for name in found.splits[split]]
    check_stored(images.values, images.where)
    return images.values, class_labels(labels.values, labels.where, len(images.values))


def _needed(found: _Found, split: str, name: str) -> _Array:
    array = found.read(split, name)
    if array is None:
        raise InputError(f"data.dir: {found.place} has no {name} for {split}; expected {LAYOUT}.")
    return array


def _class_names(found: _Found, train_labels: np.ndarray, test_labels: np.ndarray) -> tuple[str, ...]:
    """The K class names: those of the array `class_names`, else the numbers of the classes."""
    present = np.unique(train_labels)
    num_classes = len(present)
    if present[-1] != num_classes - 1:
        got = f"{counted(num_classes, 'class')} numbered {present[0]}..{present[-1]}"
        hint = " Subtract 1 from all labels." if np.array_equal(present, np.arange(num_classes) + 1) else ""
        raise InputError(
            f"{found.place}: got training labels of {got}; expected classes 0..K-1, each with training images.{hint}"
        )
    if test_labels.max() >= num_classes:
        raise InputError(
            f"{found.place}: got a test label {test_labels.max()}; expected 0..{num_classes - 1}, the classes with"
            " training images."
        )
    return _names(found.read("train", _CLASS_NAMES), num_classes)


def _names(named: _Array | None, num_classes: int) -> tuple[str, ...]:
    """The names that the array holds, else the numbers of the classes."""
    if named is None:
        return tuple(str(label) for label in range(num_classes))
    names = named.values
    if names.dtype.kind != "U" or names.shape != (num_classes,) or len(np.unique(names)) < num_classes:
        raise InputError(
            f"{named.where}: got {form(names)}; expected {num_classes} different strings, one for each class."
        )
    return tuple(map(str, names))

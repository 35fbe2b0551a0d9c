"""Which image files there are: one lister of class folders."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

from fastmagn.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
LAYOUT = f"CLASS/IMAGE in it, IMAGE one of *{', *'.join(IMAGE_SUFFIXES)}"
_SHOWN = 3


def list_classes(root: Path) -> dict[str, list[str]]:
    """The names of the image files in each class folder of `root`, both sorted; names with a dot first are left out.

    Raises:
        InputError: No class folders, or one without images.
    """
    with os.scandir(root) as entries:
        classes = _visible(entry.name for entry in entries if entry.is_dir())
    if not classes:
        raise InputError(f"{root}: has no class folders; expected {LAYOUT}.")
    files = {name: _visible(_image_names(root / name)) for name in classes}
    empty = [name for name, images in files.items() if not images]
    if empty:
        raise InputError(
            f"{root}: {len(empty)} of {len(classes)} class folders hold no image: {some(empty)}; expected {LAYOUT}."
            " Remove these folders, or give the folder whose subfolders are the classes."
        )
    return files


def _image_names(folder: Path) -> Iterable[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file():
                yield entry.name


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def report_unreadable(unreadable: list[str], num_tried: int, dir: Path) -> None:
    """Warn of the files left out of `num_tried`, if any; raise InputError if none is left."""
    if not unreadable:
        return
    message = f"{len(unreadable)} of {num_tried} image files cannot be read: {some(unreadable)}"
    if len(unreadable) == num_tried:
        raise InputError(f"{dir}: {message}. No image is left.")
    warnings.warn(f"{dir}: {message}. They are left out.", stacklevel=3)


def some(names: list[str]) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def image_names(folder: Path) -> list[str]:
    """The names of a folder's image files, sorted; those that start with a dot are not looked at.

    Raises:
        InputError: There is no such folder, or it cannot be read.
    """
    return sorted(
        entry.name
        for entry in _entries(folder, "a folder of images")
        if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
    )


def class_folders(folder: Path) -> list[str]:
    """The names of a folder's subfolders, sorted; those that start with a dot are not looked at.

    Raises:
        InputError: There is no such folder, it cannot be read, or it has none.
    """
    entries = _entries(folder, "a folder with a subfolder for each class")
    names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    if not names:
        raise InputError(f"{folder}: has no subfolders; expected one for each class, with its images in it.")
    return names


def _entries(folder: Path, expected: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder; expected {expected}.") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); expected {expected}.") from error

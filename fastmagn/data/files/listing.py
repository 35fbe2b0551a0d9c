"""Which image files a folder holds: the one lister of class folders, DIR/CLASS/IMAGE as in torchvision's ImageFolder.

Names that start with a dot are ignored everywhere.
"""

import os
from pathlib import Path

from fastmagn.errors import InputError, some

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
LAYOUT = f"CLASS/IMAGE in it, IMAGE one of *{', *'.join(IMAGE_SUFFIXES)}"


def list_classes(root: Path) -> dict[str, list[str]]:
    """The names of the image files in each class folder of `root`, both sorted.

    Raises:
        InputError: There is no such folder, it cannot be read, it has no class folders, or one of them has no images.
    """
    files = {name: image_names(root / name) for name in class_folders(root)}
    empty = [name for name, images in files.items() if not images]
    if empty:
        raise InputError(
            f"{root}: {len(empty)} of {len(files)} class folders hold no image: {some(empty)}; expected {LAYOUT}."
            " Remove these folders, or give the folder whose subfolders are the classes."
        )
    return files


def class_folders(root: Path) -> list[str]:
    """The names of a folder's subfolders, sorted.

    Raises:
        InputError: There is no such folder, it cannot be read, or it has no subfolders.
    """
    names = sorted(entry.name for entry in _visible_entries(root, LAYOUT) if entry.is_dir())
    if not names:
        raise InputError(f"{root}: has no class folders; expected {LAYOUT}.")
    return names


def image_names(folder: Path) -> list[str]:
    """The names of a folder's image files, sorted.

    Raises:
        InputError: There is no such folder, or it cannot be read.
    """
    entries = _visible_entries(folder, "images in it")
    return sorted(entry.name for entry in entries if entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file())


def _visible_entries(folder: Path, content: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no such folder; expected one with {content}.") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); expected a folder with {content}.") from error

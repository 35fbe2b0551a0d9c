"""Which image files a folder holds: the one lister of class folders, DIR/CLASS/IMAGE as in torchvision's ImageFolder.

As there, folders within a class folder are searched, links are followed, and the order is that of the folders' paths
and then of the names. Names that start with a dot are ignored everywhere. Files that are not used are counted by
reason. One other layout is read, that of Tiny-ImageNet's val; see `annotations`.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import features

from fastmagn.data.files.annotations import ANNOTATIONS, IMAGES, read_annotations
from fastmagn.errors import InputError, some, warn_caller

HAS_AVIF = "avif" in features.get_supported()  # Pillow's packages have it from version 11.3
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".gif"),
    *((".avif",) if HAS_AVIF else ()),
)
LAYOUT = f"CLASS/IMAGE in it, IMAGE one of *{', *'.join(IMAGE_SUFFIXES)}"
_OTHER_KIND = "of another kind"
_PLURALS = {
    "dangling link": "dangling links",
    "link to a folder above it": "links to folders above them",
    "folder that cannot be read": "folders that cannot be read",
}
_SUFFIXES_SHOWN = 5


class Found(NamedTuple):
    """The image files of a folder, and what else it holds.

    Args:
        names: Paths relative to the folder, with slashes.
        unused: Reason -> how many files are not used for it.
        suffixes: The suffixes of the files that are of another kind.
    """

    names: list[str]
    unused: Counter[str]
    suffixes: set[str]


def list_classes(root: Path) -> dict[str, list[str]]:
    """The image files of each class folder of `root`, as paths relative to `root`; the classes are sorted.

    A warning counts the files that are not used, by reason. Where all images are in the folder `images`, and
    val_annotations.txt is beside it, that file says the classes.

    Raises:
        InputError: The folder does not exist or cannot be read, it has no class folders, or one of them has no images.
    """
    folders = class_folders(root)
    if folders == [IMAGES] and (root / ANNOTATIONS).is_file():
        return _annotated(root)
    files = {name: find_images(root / name) for name in folders}
    empty = [name for name, found in files.items() if not found.names]
    if empty:
        left = _unused_in_words([files[name] for name in empty])
        raise InputError(
            f"{root}: {len(empty)} of {len(files)} class folders hold no image: {some(empty)}; expected {LAYOUT}."
            f"{f' Not used there: {left}.' if left else ''} Remove these folders, or give the folder whose subfolders"
            " are the classes."
        )
    outside = sum(_is_image_name(entry.name) and not _is(entry.is_dir) for entry in _visible_entries(root, LAYOUT))
    beside = Found([], Counter({"outside the class folders": outside} if outside else {}), set())
    left = _unused_in_words([beside, *files.values()])
    if left:
        warn_caller(f"{root}: files that are not used: {left}.")
    return {name: [f"{name}/{image}" for image in found.names] for name, found in files.items()}


def _annotated(root: Path) -> dict[str, list[str]]:
    classes = read_annotations(root / ANNOTATIONS)
    named = {name for names in classes.values() for name in names}
    num_others = sum(f"{IMAGES}/{name}" not in named for name in find_images(root / IMAGES).names)
    if num_others:
        warn_caller(f"{root}: files that are not used: {num_others} not in {ANNOTATIONS}.")
    return classes


def class_files(classes: Mapping[str, list[str]], labels: Iterable[int]) -> tuple[list[str], np.ndarray]:
    """The paths of all images of `list_classes`, and their labels, int64 [N]; one label per class."""
    names = [name for files in classes.values() for name in files]
    counts = [len(files) for files in classes.values()]
    return names, np.repeat(np.array(list(labels), np.int64), counts)


def class_folders(root: Path) -> list[str]:
    """The names of a folder's subfolders, sorted.

    Raises:
        InputError: The folder does not exist, cannot be read, or has no subfolders.
    """
    names = sorted(entry.name for entry in _visible_entries(root, LAYOUT) if _is(entry.is_dir))
    if not names:
        raise InputError(f"{root}: has no class folders; expected {LAYOUT}.")
    return names


def image_names(folder: Path) -> list[str]:
    """The image files in a folder and in its subfolders, relative to it, in torchvision's order.

    Raises:
        InputError: The folder does not exist or cannot be read.
    """
    return find_images(folder).names


def find_images(folder: Path) -> Found:
    """The image files in a folder and in its subfolders, and what is not used.

    Raises:
        InputError: The folder does not exist or cannot be read.
    """
    unused: Counter[str] = Counter()
    suffixes: set[str] = set()
    by_folder: dict[str, list[str]] = {}
    for inner, entries in _walk(folder, unused):
        for entry in entries:
            reason = _why_unused(entry)
            if reason is None:
                by_folder.setdefault(inner, []).append(entry.name)
            elif reason:
                unused[reason] += 1
                if reason == _OTHER_KIND:
                    suffixes.add(os.path.splitext(entry.name)[1].lower() or "no suffix")
    names = [f"{inner}{name}" for inner in sorted(by_folder, key=_walked_path) for name in sorted(by_folder[inner])]
    return Found(names, unused, suffixes)


def _walk(folder: Path, unused: Counter[str]) -> Iterator[tuple[str, list[os.DirEntry]]]:
    """Each folder below `folder`, as "", "inner/" or "inner/more/", and its entries that are not folders."""
    top = _scan(folder, "images in it")
    pending: list[tuple[str, list[os.DirEntry], tuple[tuple[int, int], ...]]] = [("", top, (_identity(folder),))]
    while pending:
        inner, entries, above = pending.pop()
        yield inner, [entry for entry in entries if not _is(entry.is_dir)]
        for entry in entries:
            if entry.name.startswith(".") or not _is(entry.is_dir):
                continue
            try:
                identity = _identity(entry.path)
                # A link to a folder that it is in: os.walk would follow it until the system refuses the path.
                if identity in above:
                    unused["link to a folder above it"] += 1
                    continue
                with os.scandir(entry.path) as inside:
                    pending.append((f"{inner}{entry.name}/", list(inside), (*above, identity)))
            except OSError:
                unused["folder that cannot be read"] += 1


def _walked_path(inner: str) -> str:
    """What torchvision sorts the folders by: their path without a slash at the end."""
    return inner.rstrip("/")


def _identity(folder: str | Path) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _why_unused(entry: os.DirEntry) -> str | None:
    """Why an entry that is not a folder is not used; None if it is an image, "" if it need not be mentioned."""
    if entry.name.startswith("."):
        return "hidden" if _is_image_name(entry.name) else ""
    if not _is_image_name(entry.name):
        return _OTHER_KIND
    if _is(entry.is_file):
        return None
    return "not a file" if os.path.exists(entry.path) else "dangling link"


def _is(kind: Callable[[], bool]) -> bool:
    """What `entry.is_dir` or `entry.is_file` says; False for a link to itself, at which they raise."""
    try:
        return kind()
    except OSError:
        return False


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _unused_in_words(folders: list[Found]) -> str:
    """`2 hidden, 3 of another kind (.txt, .xml)`; empty if everything is used."""
    unused: Counter[str] = Counter()
    suffixes: set[str] = set()
    for found in folders:
        unused.update(found.unused)
        suffixes |= found.suffixes
    kinds = {_OTHER_KIND: f" ({some(sorted(suffixes), _SUFFIXES_SHOWN)})"}
    return ", ".join(
        f"{count} {_PLURALS.get(reason, reason) if count > 1 else reason}{kinds.get(reason, '')}"
        for reason, count in sorted(unused.items())
    )


def _visible_entries(folder: Path, content: str) -> list[os.DirEntry]:
    return [entry for entry in _scan(folder, content) if not entry.name.startswith(".")]


def _scan(folder: Path, content: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder}: no such folder; expected one with {content}.") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); expected a folder with {content}.") from error

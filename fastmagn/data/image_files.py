"""Image files in a folder for each class: found, looked into once, and decoded by Pillow. Nothing is decoded twice."""

import hashlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from fastmagn.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
LAYOUT = f"CLASS/IMAGE in it, IMAGE one of *{', *'.join(IMAGE_SUFFIXES)}"

# Other decoders never run, whatever a file's suffix says: Pillow hands EPS to Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
_ORIENTATION = 0x0112
_JPEG_END = b"\xff\xd9"
# What the network's disk takes to answer, not the cores, bounds how fast headers are read.
_SCAN_THREADS = 16
_SCANNED_AT_A_TIME = 256  # a header takes 30 us, handing one file to a thread as long again
_SHOWN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """Files that can be read, one row each, and what their headers say.

    Args:
        root: The folder that `names` are relative to.
        names: CLASS/IMAGE, str [N].
        labels: int64 [N].
        num_bytes: Sizes of the files, int64 [N].
        sizes: Height and width in px, upright, int64 [N, 2].
        is_plain: Whether it is a whole JPEG, grey or colour, upright: what every decoder decodes alike. bool [N].
    """

    root: Path
    names: np.ndarray
    labels: np.ndarray
    num_bytes: np.ndarray
    sizes: np.ndarray
    is_plain: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice | np.ndarray) -> "ImageFiles":
        columns = ("names", "labels", "num_bytes", "sizes", "is_plain")
        return ImageFiles(root=self.root, **{name: getattr(self, name)[rows] for name in columns})

    def path(self, row: int) -> str:
        return os.path.join(self.root, self.names[row])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, labels and sizes in bytes, in the order of the names."""
        digest = hashlib.sha256()
        for row in np.argsort(self.names):
            digest.update(f"{self.names[row]}\0{self.labels[row]}\0{self.num_bytes[row]}\n".encode(errors="replace"))
        return digest.hexdigest()


class Header(NamedTuple):
    """What is known of an image file before it is decoded; the size is upright, in px."""

    num_bytes: int
    height: int
    width: int
    is_plain: bool


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


def scan(root: Path, names: list[str], labels: np.ndarray) -> ImageFiles:
    """Look into each file's header; what cannot be read is left out, and one warning counts it.

    A file that does not end as a JPEG does is decoded here once: it may be truncated.

    Args:
        root: The folder.
        names: CLASS/IMAGE, N of them.
        labels: int64 [N].

    Raises:
        InputError: None can be read.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(_SCAN_THREADS) as pool:
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, on palettes and broken EXIF
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        paths = [os.path.join(root, name) for name in names]
        chunks = (paths[first : first + _SCANNED_AT_A_TIME] for first in range(0, len(paths), _SCANNED_AT_A_TIME))
        found = [header for headers in pool.map(_read_headers, chunks) for header in headers]
    unreadable = [f"{path} ({header})" for path, header in zip(paths, found, strict=True) if isinstance(header, str)]
    report_unreadable(unreadable, len(names), root)
    kept = np.array([not isinstance(header, str) for header in found])
    columns = list(zip(*(header for header in found if not isinstance(header, str)), strict=True))
    return ImageFiles(
        root=root,
        names=np.array(names, object)[kept],
        labels=labels[kept],
        num_bytes=np.array(columns[0], np.int64),
        sizes=np.stack([np.array(columns[1], np.int64), np.array(columns[2], np.int64)], axis=1),
        is_plain=np.array(columns[3], bool),
    )


def _read_headers(paths: list[str]) -> list[Header | str]:
    return [or_reason(read_header)(path) for path in paths]


def read_header(path: str) -> Header:
    """One file's header; raises whatever Pillow raises."""
    with open(path, "rb") as file:
        with Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION, 1)
            is_jpeg = image.format == "JPEG"
            # Without Adobe's marker of another colour space, or with the one of the usual YCbCr.
            usual = image.mode in ("L", "RGB") and image.info.get("adobe_transform", 1) == 1
            file.seek(0, os.SEEK_END)
            num_bytes = file.tell()
            file.seek(max(0, num_bytes - len(_JPEG_END)))
            is_whole = is_jpeg and file.read() == _JPEG_END
        if not is_whole:
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as image:
                image.load()
    if orientation in (5, 6, 7, 8):
        height, width = width, height
    return Header(num_bytes, height, width, is_whole and usual and orientation in (0, 1))


def open_upright_rgb(path: str | Path) -> Image.Image:
    """A file's image as RGB of 8 bits, turned as its EXIF orientation says; raises whatever Pillow raises.

    Alpha is dropped; 16-bit grey is scaled, not clipped as torchvision's ImageFolder would.
    """
    with Image.open(path, formats=_FORMATS) as file:
        return upright_rgb(file)


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as `open_upright_rgb` has a file's."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    return image.convert("RGB")


def or_reason(read: Callable) -> Callable:
    """`read(path, ...)`, or why it failed, in a line that does not name the path."""

    def reads(path: str | Path, *rest: object) -> object:
        try:
            return read(path, *rest)
        except UNREADABLE as error:
            return reason(error, path)

    return reads


def reason(error: Exception, path: str | Path) -> str:
    """What went wrong with `path`, in a line that does not name it."""
    return " ".join(str(error).replace(f" {str(path)!r}", "").split())[:100] or type(error).__name__


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

"""Image files in a folder for each class: found, looked into once, and decoded by Pillow. Nothing is decoded twice."""

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fastmagn.data.files.decoding import _FORMATS, or_reason
from fastmagn.data.files.listing import report_unreadable

_ORIENTATION = 0x0112
_JPEG_END = b"\xff\xd9"
# What the network's disk takes to answer, not the cores, bounds how fast headers are read.
_SCAN_THREADS = 16
_SCANNED_AT_A_TIME = 256  # a header takes 30 us, handing one file to a thread as long again


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

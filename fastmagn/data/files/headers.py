"""What the headers of image files say: sizes, and which decoders may decode a file. Read once, when a run starts."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastmagn.data.files.content import content_digests
from fastmagn.data.files.decoding import Unreadable, open_image, orientation, quiet_pillow, tried, warn_left_out

_JPEG_END = b"\xff\xd9"
# The latency of network storage limits how fast headers are read, not the number of cores.
_SCAN_THREADS = 16
_FILES_PER_TASK = 256  # reading a header takes 30 us, and handing one file to a thread takes as long


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """Files that can be read, one row each, and what their headers say.

    Args:
        root: The folder that `names` are relative to.
        names: CLASS/IMAGE, str [N].
        labels: int64 [N].
        num_bytes: Sizes of the files, int64 [N].
        sizes: Height and width in px, upright, int64 [N, 2].
        is_plain: Whether the file is a whole JPEG, grey or colour, upright; every decoder decodes these alike. bool [N]
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
        """The path of a row's file."""
        return os.path.join(self.root, self.names[row])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, labels and contents, in the order of the names; files are read unless that is cached.

        Raises:
            InputError: A file cannot be read any more.
        """
        return self._fingerprint([digest.hex() for digest in content_digests(self.root, list(self.names))])

    @property
    def former_fingerprint(self) -> str:
        """The fingerprint of earlier versions: over names, labels and sizes in bytes."""
        return self._fingerprint(self.num_bytes)

    def _fingerprint(self, contents: Sequence[object]) -> str:
        digest = hashlib.sha256()
        for row in np.argsort(self.names):
            digest.update(f"{self.names[row]}\0{self.labels[row]}\0{contents[row]}\n".encode(errors="replace"))
        return digest.hexdigest()


class Header(NamedTuple):
    """What is known of an image file before it is decoded; height and width are upright, in px."""

    num_bytes: int
    height: int
    width: int
    is_plain: bool


def scan(root: Path, names: list[str], labels: np.ndarray) -> ImageFiles:
    """Read each file's header. Files that cannot be read are left out, and one warning counts them.

    A file that does not end as a JPEG does is decoded here once, because it may be truncated.

    Args:
        root: The folder.
        names: CLASS/IMAGE, N of them.
        labels: int64 [N].

    Raises:
        InputError: No file can be read.
    """
    paths = [os.path.join(root, name) for name in names]
    tasks = (paths[first : first + _FILES_PER_TASK] for first in range(0, len(paths), _FILES_PER_TASK))
    with quiet_pillow(), ThreadPoolExecutor(_SCAN_THREADS) as pool:
        found = [header for headers in pool.map(_read_headers, tasks) for header in headers]
    warn_left_out([header for header in found if isinstance(header, Unreadable)], len(names), root)
    is_read = np.array([isinstance(header, Header) for header in found])
    columns = Header(*zip(*(header for header in found if isinstance(header, Header)), strict=True))
    return ImageFiles(
        root=root,
        names=np.array(names, object)[is_read],
        labels=labels[is_read],
        num_bytes=np.array(columns.num_bytes, np.int64),
        sizes=np.stack([np.array(columns.height, np.int64), np.array(columns.width, np.int64)], axis=1),
        is_plain=np.array(columns.is_plain, bool),
    )


def read_header(path: str) -> Header:
    """One file's header; raises what `open_image` and Pillow raise."""
    with open(path, "rb") as file:
        num_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, num_bytes - len(_JPEG_END)))
        ends_as_jpeg = file.read() == _JPEG_END
        file.seek(0)
        with open_image(file) as image:
            is_whole = ends_as_jpeg and image.format == "JPEG"
            if not is_whole:
                image.load()  # which also turns a TIFF upright
            width, height = image.size
            turned = orientation(image)
            # Adobe's marker is absent, or says that the colour space is the usual YCbCr.
            is_usual = image.mode in ("L", "RGB") and image.info.get("adobe_transform", 1) == 1
    if turned in (5, 6, 7, 8):
        height, width = width, height
    return Header(num_bytes, height, width, is_whole and is_usual and turned == 1)


def _read_headers(paths: list[str]) -> list[Header | Unreadable]:
    return [tried(read_header, path) for path in paths]

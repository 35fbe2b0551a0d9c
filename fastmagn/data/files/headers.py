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
from fastmagn.data.files.decoding import (
    Unreadable,
    as_rgb,
    check_range,
    open_image,
    orientation,
    quiet_pillow,
    tried,
    warn_left_out,
)
from fastmagn.data.files.items import Item, Part, open_item

_JPEG_END = b"\xff\xd9"
# The latency of network storage limits how fast headers are read, not the number of cores.
_SCAN_THREADS = 16
_FILES_PER_TASK = 256  # reading a header takes 30 us, and handing one file to a thread takes as long


@dataclass(frozen=True, eq=False)
class Spans:
    """Where encoded images lie in shards.

    Args:
        shards: The shards' absolute paths.
        spans: For each image its shard's number, its offset and its size in bytes, int64 [N, 3].
    """

    shards: tuple[str, ...]
    spans: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> "Spans":
        return Spans(self.shards, self.spans[rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """Encoded images that can be read, one row each, and what their headers say.

    Args:
        root: The folder that `names` are relative to.
        names: Of files CLASS/IMAGE; of images in shards what names each, str [N].
        labels: int64 [N].
        num_bytes: Sizes of the files, int64 [N].
        sizes: Height and width in px, upright, int64 [N, 2].
        is_plain: Whether the file is a whole JPEG, grey or colour, upright; every decoder decodes these alike. bool [N]
        spans: Where the images lie in shards; None if each is a file of its own.
    """

    root: Path
    names: np.ndarray
    labels: np.ndarray
    num_bytes: np.ndarray
    sizes: np.ndarray
    is_plain: np.ndarray
    spans: Spans | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice | np.ndarray) -> "ImageFiles":
        columns = ("names", "labels", "num_bytes", "sizes", "is_plain")
        spans = None if self.spans is None else self.spans[rows]
        return ImageFiles(root=self.root, spans=spans, **{name: getattr(self, name)[rows] for name in columns})

    def item(self, row: int) -> Item:
        """Where a row's bytes are: the path of its file, or the part of a shard."""
        return item_at(self.root, self.names, self.spans, row)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, labels and contents, in the order of the names; files are read unless that is cached.

        Raises:
            InputError: A file cannot be read any more.
        """
        return self._fingerprint([digest.hex() for digest in self._digests()])

    def _digests(self) -> list[bytes]:
        return content_digests(self.root, list(self.names), [self.item(row) for row in range(len(self))])

    @property
    def former_fingerprint(self) -> str:
        """The fingerprint of earlier versions: over names, labels and sizes in bytes."""
        return self._fingerprint(self.num_bytes)

    def _fingerprint(self, contents: Sequence[object] | np.ndarray) -> str:
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


def item_at(root: Path | str, names: Sequence[str] | np.ndarray, spans: Spans | None, row: int) -> Item:
    """Where the bytes of a row are; the path of its file, or the part of a shard."""
    if spans is None:
        return os.path.join(root, names[row])
    shard, offset, num_bytes = spans.spans[row].tolist()
    return Part(spans.shards[shard], offset, num_bytes, os.path.join(root, names[row]))


def scan(root: Path, names: list[str], labels: np.ndarray, spans: Spans | None = None) -> ImageFiles:
    """Read each file's header. Files that cannot be read are left out, and one warning counts them.

    A file that does not end as a JPEG does is decoded here once, because it may be truncated.

    Args:
        root: The folder.
        names: CLASS/IMAGE, N of them; of images in shards what names each.
        labels: int64 [N].
        spans: Where the images lie in shards; None if each is a file of its own.

    Raises:
        InputError: No file can be read.
    """
    items = [item_at(root, names, spans, row) for row in range(len(names))]
    tasks = (items[first : first + _FILES_PER_TASK] for first in range(0, len(items), _FILES_PER_TASK))
    with quiet_pillow(), ThreadPoolExecutor(_SCAN_THREADS) as pool:
        found = [header for headers in pool.map(_read_headers, tasks) for header in headers]
    return gathered(root, names, labels, spans, found)


def gathered(
    root: Path, names: list[str], labels: np.ndarray, spans: Spans | None, found: list[Header | Unreadable]
) -> ImageFiles:
    """The images whose headers could be read; arguments as of `scan`, and what was found of each image.

    Raises:
        InputError: No image could be read.
    """
    warn_left_out([header for header in found if isinstance(header, Unreadable)], len(names), root)
    is_read = np.array([isinstance(header, Header) for header in found])
    num_bytes, heights, widths, is_plain = zip(*(header for header in found if isinstance(header, Header)), strict=True)
    return ImageFiles(
        root=root,
        names=np.array(names, object)[is_read],
        labels=labels[is_read],
        num_bytes=np.array(num_bytes, np.int64),
        sizes=np.stack([np.array(heights, np.int64), np.array(widths, np.int64)], axis=1),
        is_plain=np.array(is_plain, bool),
        spans=None if spans is None else spans[is_read],
    )


def read_header(item: Item) -> Header:
    """One image's header; raises what `open_image`, `check_range`, `as_rgb` and Pillow raise."""
    with open_item(item) as file:
        num_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(0, num_bytes - len(_JPEG_END)))
        ends_as_jpeg = file.read() == _JPEG_END
        file.seek(0)
        with open_image(file) as image:
            is_whole = ends_as_jpeg and image.format == "JPEG"
            if not is_whole:
                image.load()  # which also turns a TIFF upright
                check_range(image)
                as_rgb(image.crop((0, 0, 1, 1)))  # raises for pixels that no decoder takes
            width, height = image.size
            turned = orientation(image)
            # Adobe's marker is absent, or says that the colour space is the usual YCbCr.
            is_usual = image.mode in ("L", "RGB") and image.info.get("adobe_transform", 1) == 1
    if turned in (5, 6, 7, 8):
        height, width = width, height
    return Header(num_bytes, height, width, is_whole and is_usual and turned == 1)


def _read_headers(items: list[Item]) -> list[Header | Unreadable]:
    return [tried(read_header, item) for item in items]

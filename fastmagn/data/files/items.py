"""Where the bytes of an encoded image are: in a file of its own, or in a part of a larger one (a shard)."""

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Part(NamedTuple):
    """An image's bytes within a file.

    Args:
        file: The file's path.
        offset: Where the bytes start, 0 or more.
        num_bytes: How many there are.
        name: What messages call the image: SHARD/NAME.
    """

    file: str
    offset: int
    num_bytes: int
    name: str

    def __str__(self) -> str:
        return self.name


Item = str | Path | Part


def file_of(item: Item) -> str | Path:
    """The path of the file that holds an item."""
    return item.file if isinstance(item, Part) else item


def read_item(item: Item) -> np.ndarray:
    """The bytes of an item, uint8 [n].

    Raises:
        OSError: The file cannot be read, or ends before them.
    """
    if not isinstance(item, Part):
        return np.fromfile(item, np.uint8)
    data = np.empty(item.num_bytes, np.uint8)
    with open(item.file, "rb", buffering=0) as file:
        read_into(file.fileno(), item.offset, memoryview(data))
    return data


def open_item(item: Item) -> io.BufferedReader:
    """A reader of an item's bytes, from which a header can be read without the rest."""
    return io.BufferedReader(_PartReader(item)) if isinstance(item, Part) else open(item, "rb")


class _PartReader(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, part: Part) -> None:
        self._file, self._part, self._at = open(part.file, "rb", buffering=0), part, 0  # noqa: SIM115

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._part.num_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(0, self._part.num_bytes - self._at)]
        read_into(self._file.fileno(), self._part.offset + self._at, wanted)
        self._at += len(wanted)
        return len(wanted)

    def close(self) -> None:
        self._file.close()
        super().close()


def read_into(descriptor: int, offset: int, out: memoryview) -> None:
    """Fill `out` with the bytes of an open file from `offset` on.

    Raises:
        OSError: The file cannot be read, or ends before them.
    """
    while out:
        count = os.preadv(descriptor, [out], offset)
        if count == 0:
            raise OSError("the file ends within the image")
        out, offset = out[count:], offset + count

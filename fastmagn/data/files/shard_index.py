"""What shards hold, image by image: read once, then kept in a cache of the user.

The cache has one file for each shard in $XDG_CACHE_HOME/fastmagn/shards, by default ~/.cache/fastmagn/shards: names,
labels, offsets, sizes in bytes and what the images' headers say. Its key has the shard's size, inode and both of its
times, as that of `content`. With it, any image is read by its number alone, so the order of an epoch is a permutation
of all images, whatever shards they lie in.
"""

import io
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastmagn.data.files.content import cache_file, file_key, is_settled, prune
from fastmagn.data.files.decoding import Unreadable, quiet_pillow, tried
from fastmagn.data.files.headers import Header, ImageFiles, Spans, gathered, item_at, read_header
from fastmagn.errors import InputError
from fastmagn.machine.files import replace_file
from fastmagn.machine.waiting_lock import waiting_lock

_FORMAT = "fastmagn shard 3"
_THREADS = 16  # network storage answers many requests at a time
_UNREAD = -1
_PARSING = threading.Lock()  # NumPy parses headers by Python's ast, which can fail in Python 3.11 if threads interleave


class Members(NamedTuple):
    """The images of a shard, in its order.

    Args:
        names: What names each within the shard.
        labels: Their labels as text, numbers or class names.
        spans: Offset and size in bytes of each.
    """

    names: list[str]
    labels: list[str]
    spans: list[tuple[int, int]]


class Indexed(NamedTuple):
    """The images of several shards.

    Args:
        names: SHARD/NAME, N of them.
        labels: As `Members.labels`.
        spans: Where they lie.
        headers: int64 [N, 3]: height, width, and whether every decoder decodes the image; -1 where that is unknown.
    """

    names: list[str]
    labels: list[str]
    spans: Spans
    headers: np.ndarray


def index_shards(
    root: Path, shards: Sequence[str], files: Sequence[str], read: Callable[[str], Members], kind: str
) -> Indexed:
    """The images of `shards`, from the cache or by `read` and the images' headers.

    Of several processes that ask for the same shards, one reads them and the others wait for its cache.

    Args:
        root: The folder of the set.
        shards: The shards' names.
        files: The files that hold the bytes, in the order of `shards`.
        read: Reads a file; raises InputError if it is damaged.
        kind: What else `read` depends on.

    Raises:
        InputError: What `read` raises, or a file cannot be read.
    """
    lock = cache_file("shards", f"{os.path.realpath(root)} {kind}")
    if lock is not None:
        with suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)

    def indexed() -> list[tuple[Members, np.ndarray]]:
        with quiet_pillow(), ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(lambda file: _shard(file, read, kind), files))

    if lock is None:
        parts = indexed()
    else:
        with waiting_lock(lock.with_suffix(".lock")):
            parts = indexed()
        with suppress(OSError):
            prune(lock)
    spans = [np.insert(np.array(part.spans, np.int64), 0, at, axis=1) for at, (part, _) in enumerate(parts)]
    return Indexed(
        [f"{shard}/{name}" for shard, (part, _) in zip(shards, parts, strict=True) for name in part.names],
        [label for part, _ in parts for label in part.labels],
        Spans(tuple(map(os.path.abspath, files)), np.concatenate(spans)),
        np.concatenate([headers for _, headers in parts]),
    )


def image_files(root: Path, indexed: Indexed, labels: np.ndarray) -> ImageFiles:
    """The images that can be read; a warning counts the others.

    Args:
        root: The folder of the set.
        indexed: The images.
        labels: int64 [N].

    Raises:
        InputError: No image can be read.
    """

    def header(row: int) -> Header | Unreadable:
        height, width, is_plain = indexed.headers[row].tolist()
        if height == _UNREAD:
            return tried(read_header, item_at(root, indexed.names, indexed.spans, row))
        return Header(int(indexed.spans.spans[row, 2]), height, width, bool(is_plain))

    with quiet_pillow():
        found = [header(row) for row in range(len(labels))]
    return gathered(root, indexed.names, labels, indexed.spans, found)


def _shard(file: str, read: Callable[[str], Members], kind: str) -> tuple[Members, np.ndarray]:
    start = time.time()
    try:
        status = os.stat(file)
        key = file_key(f"{_FORMAT} {kind}", status)
        place = cache_file("shards", f"{os.path.realpath(file)} {kind}")
        known = None if place is None else _load(place, key)
        if known is not None:
            return known
        members = read(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error}); expected a shard.") from error
    spans = Spans((file,), np.insert(np.array(members.spans, np.int64), 0, 0, axis=1))
    found = (tried(read_header, item_at("", members.names, spans, row)) for row in range(len(members.names)))
    headers = np.array(
        [(item.height, item.width, item.is_plain) if isinstance(item, Header) else [_UNREAD] * 3 for item in found],
        np.int64,
    )
    if place is not None and is_settled(status, start):
        with suppress(OSError):
            _save(place, key, members, headers)
    return members, headers


def _save(place: Path, key: bytes, members: Members, headers: np.ndarray) -> None:
    content = io.BytesIO()
    np.savez(
        content,
        key=np.frombuffer(key, np.uint8),
        names=_packed(members.names),
        labels=_packed(members.labels),
        spans=np.array(members.spans, np.int64),
        headers=headers,
    )
    with replace_file(place) as file:
        file.write(content.getvalue())


def _load(place: Path, key: bytes) -> tuple[Members, np.ndarray] | None:
    """What the cache holds of a shard; None if its file is missing, of another state of the shard, or damaged."""
    try:
        with _PARSING, place.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if stored["key"].tobytes() != key:
                return None
            spans, headers = stored["spans"], stored["headers"]
            members = Members(_unpacked(stored["names"]), _unpacked(stored["labels"]), spans.tolist())
    except Exception:  # of many types: whatever a parser raises, the cache is made anew
        return None
    with suppress(OSError):
        os.utime(place)  # the caches that were not used for longest are removed first
    return members, headers


def _packed(texts: list[str]) -> np.ndarray:
    """Texts as JSON, which keeps every character that an archive's names and labels may hold, NUL and newlines too."""
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


def _unpacked(packed: np.ndarray) -> list[str]:
    return json.loads(packed.tobytes())

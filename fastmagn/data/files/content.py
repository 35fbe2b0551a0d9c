"""The SHA-256 of image files, each read once: a cache of the user knows those of unchanged files.

The cache has one file for each folder of images, named by a digest of its path, in $XDG_CACHE_HOME/fastmagn/contents,
by default in ~/.cache/fastmagn/contents. It holds 48 bytes per image: a key and the SHA-256. One half of the key is a
digest of the image's name, the other one of its name, size, inode and both of its times. No program can set the second
time (of the last change of the inode), so a changed file is read again even where its size and its modification time
are as they were. Its new entry takes the place of the old one, which has the same first half.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from fastmagn.data.files.items import Item, Part, file_of, open_item
from fastmagn.errors import InputError, counted
from fastmagn.machine.console import console, progress_bar
from fastmagn.machine.files import replace_file
from fastmagn.machine.waiting_lock import waiting_lock

_MAGIC = b"fastmagn contents 2\n"
_KEY_BYTES, _NAME_BYTES, _DIGEST_BYTES = 16, 8, 32
_ENTRY_BYTES = _KEY_BYTES + _DIGEST_BYTES
# A file may change twice within one tick of its file system's clock, and then both its times are as they were.
_SETTLED_S = 2.0
_THREADS = 16  # network storage answers many requests at a time
_FILES_PER_TASK = 64
TOLD_FROM_BYTES = 4_000_000_000
_MAX_CACHE_BYTES = 512_000_000
_Any = TypeVar("_Any")


def content_digests(root: Path, names: Sequence[str], items: Sequence[Item] | None = None) -> list[bytes]:
    """The SHA-256 of each image's bytes, which are read unless the cache knows them.

    A cache that cannot be used is left alone.

    Of several processes that ask for the same folder, one reads the files and the others wait for its cache. None waits
    for a file that the cache knows.

    Args:
        root: The folder.
        names: Paths relative to it, or other names of the images.
        items: Where the bytes are; by default in the files `names`.

    Raises:
        InputError: A file cannot be read.
    """
    items = [os.path.join(root, name) for name in names] if items is None else items
    start = time.time()
    with ThreadPoolExecutor(_THREADS) as pool:
        found = [status for part in pool.map(_stats, _tasks(items)) for status in part]
    keys = [_key(*row) for row in zip(names, items, found, strict=True)]
    place = _cache_file(root)
    known = {} if place is None else _read(place)
    if place is None:
        known = _contents(keys, items, found, known)
    elif not all(key in known for key in keys):
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(place.with_suffix(".lock")):
            before = _read(place)  # another process may have read the files meanwhile
            known = _contents(keys, items, found, before)
            settled = [key for key, status in zip(keys, found, strict=True) if is_settled(status, start)]
            if any(key not in before for key in settled):
                with suppress(OSError):
                    _write(place, _kept({key: known[key] for key in settled}, before, keys))
    return [known[key] for key in keys]


def _contents(
    keys: Sequence[bytes], items: Sequence[Item], found: Sequence[os.stat_result], known: dict[bytes, bytes]
) -> dict[bytes, bytes]:
    """The digests of all items by key, those of `known` among them; the other files are read."""
    unknown = [row for row, key in enumerate(keys) if key not in known]
    if not unknown:
        return known
    num_bytes = sum(_num_bytes(items[row], found[row]) for row in unknown)
    if num_bytes >= TOLD_FROM_BYTES:
        console.print(
            f"reading {counted(len(unknown), 'image file', ',')}, {num_bytes / 1e9:,.0f} GB, once: a resumed run"
            " recognises its images by their content",
            soft_wrap=True,
        )
    read: dict[bytes, bytes] = {}
    with ThreadPoolExecutor(_THREADS) as pool, progress_bar() as bar:
        task = bar.add_task("images read", total=len(unknown), status="")
        for rows, digests in pool.map(lambda rows: (rows, [_digest(items[row]) for row in rows]), _tasks(unknown)):
            read.update(zip((keys[row] for row in rows), digests, strict=True))
            bar.update(task, advance=len(rows))
    return known | read


def _kept(entries: dict[bytes, bytes], before: dict[bytes, bytes], keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """New entries, and earlier ones of other names as far as the bound allows: the splits of shards share a root."""
    names = {key[:_NAME_BYTES] for key in keys}
    others = ((key, digest) for key, digest in before.items() if key[:_NAME_BYTES] not in names)
    return entries | dict(islice(others, max(0, _MAX_CACHE_BYTES // _ENTRY_BYTES - len(entries))))


def _tasks(items: Sequence[_Any]) -> Iterator[Sequence[_Any]]:
    return (items[first : first + _FILES_PER_TASK] for first in range(0, len(items), _FILES_PER_TASK))


def _stats(items: Sequence[Item]) -> list[os.stat_result]:
    known: dict[str | Path, os.stat_result] = {}
    for item in items:
        file = file_of(item)
        if file not in known:  # a shard holds many images
            try:
                known[file] = os.stat(file)
            except OSError as error:
                raise _unreadable(item, error) from error
    return [known[file_of(item)] for item in items]


def _num_bytes(item: Item, status: os.stat_result) -> int:
    return item.num_bytes if isinstance(item, Part) else status.st_size


def _digest(item: Item) -> bytes:
    try:
        with open_item(item) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise _unreadable(item, error) from error


def _unreadable(item: Item, error: OSError) -> InputError:
    reason = error.strerror or error
    return InputError(f"{item}: cannot be read ({reason}); expected the image that was there at the start.")


def _key(name: str, item: Item, status: os.stat_result) -> bytes:
    part = f"\0{item.offset}\0{item.num_bytes}" if isinstance(item, Part) else ""
    named = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=_NAME_BYTES).digest()
    return named + file_key(name, status, part)[: _KEY_BYTES - _NAME_BYTES]


def file_key(name: str, status: os.stat_result, part: str = "") -> bytes:
    """A digest of 16 bytes that changes whenever a file changes."""
    text = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}{part}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=_KEY_BYTES).digest()


def is_settled(status: os.stat_result, start: float) -> bool:
    """Whether a file last changed so long before `start` that its times tell every later change."""
    return max(status.st_mtime, status.st_ctime) < start - _SETTLED_S


def _cache_file(root: Path) -> Path | None:
    return cache_file("contents", os.path.realpath(root))


def cache_file(kind: str, name: str) -> Path | None:
    """The user's cache file of a kind for what `name` names; None where the user has no home."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return base / "fastmagn" / kind / hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


def _read(place: Path) -> dict[bytes, bytes]:
    """The entries of a cache; empty if its file is missing or damaged."""
    try:
        content = place.read_bytes()
    except OSError:
        return {}
    with suppress(OSError):
        os.utime(place)  # the caches that were not used for longest are removed first
    head, body = content[: len(_MAGIC) + _DIGEST_BYTES], content[len(_MAGIC) + _DIGEST_BYTES :]
    if head != _MAGIC + hashlib.sha256(body).digest() or len(body) % _ENTRY_BYTES:
        return {}
    entries = (body[first : first + _ENTRY_BYTES] for first in range(0, len(body), _ENTRY_BYTES))
    return {entry[:_KEY_BYTES]: entry[_KEY_BYTES:] for entry in entries}


def _write(place: Path, entries: dict[bytes, bytes]) -> None:
    body = b"".join(key + digest for key, digest in entries.items())
    with replace_file(place) as file:
        file.write(_MAGIC + hashlib.sha256(body).digest() + body)
    prune(place)


def prune(kept: Path) -> None:
    """Remove caches beside `kept`, those that were not used for longest, until they take less than _MAX_CACHE_BYTES."""
    caches = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in kept.parent.iterdir())
    total = sum(size for _, size, _ in caches)
    for _, size, path in caches:
        if total <= _MAX_CACHE_BYTES:
            return
        if path != kept and path.suffix != ".lock":
            path.unlink(missing_ok=True)
            total -= size

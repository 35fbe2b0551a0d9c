"""What is being written has a name of its own beside the final one, and a lock; what nobody locks is a leftover.

NAME.partial-PID-HEX is being written, NAME.old-PID-HEX is a folder that is being replaced. The writer holds a lock
(flock) on what it writes. The kernel releases it when the process exits, however it exits, also in a container or on
another host, where process ids say nothing. Where the file system has no locks, a leftover is what nobody has changed
for a day.
"""

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastmagn.machine.console import warn

PATIENCE_S = 5.0  # names are locked for milliseconds; a folder that something else locks must not stop anybody
_OLD_S = 86_400.0
_TOLD_BYTES = 100_000_000  # what is worth a line


def partial_path(path: Path) -> Path:
    """A free name beside `path` for what is being written: NAME.partial-PID-HEX."""
    return _beside(path, "partial")


def old_path(path: Path) -> Path:
    """A free name beside `path` for a folder that is being replaced: NAME.old-PID-HEX."""
    return _beside(path, "old")


def _beside(path: Path, what: str) -> Path:
    # The process id alone would not do: every container has a process 1.
    return path.with_name(f"{path.name}.{what}-{os.getpid()}-{secrets.token_hex(3)}")


def hold(path: Path, descriptor: int) -> bool:
    """Lock what this process has just made, until the descriptor is closed.

    Returns:
        False if another process took it for a leftover before it was locked; then it is gone.
    """
    with suppress(OSError):  # no locks here
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    with suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


@contextmanager
def names_locked(folder: Path) -> Iterator[None]:
    """Keep other processes of fastmagn from renaming in `folder`, for work of milliseconds.

    Files may be written in the block. A second lock of the same folder would wait for the first.
    """
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        deadline = time.monotonic() + PATIENCE_S
        while not _lock_now(descriptor) and time.monotonic() < deadline:
            time.sleep(0.01)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Remove what dead processes left beside `path`. If they left no `path`, the folder they replaced is put back.

    What a living process writes there stays. A large leftover is named in a line.
    """
    found = _leftovers(path)
    if _replaced(path, found) and not path.is_file():  # a file may be written under the lock
        with names_locked(path.parent):  # also where `path` stands: a process that works in it moves what it holds
            old = _replaced(path, _leftovers(path))
            if old and not os.path.lexists(path):
                os.rename(max(old, key=lambda left: left.stat().st_ctime_ns), path)
    for left in found:
        with suppress(OSError):
            _remove(left)


def _replaced(path: Path, found: list[Path]) -> list[Path]:
    """Those of the leftovers that were folders at `path`."""
    return [left for left in found if left.name.startswith(f"{path.name}.old-")]


def _leftovers(path: Path) -> list[Path]:
    """The names beside `path` of what was being written or replaced, by anybody."""
    pattern = re.compile(re.escape(path.name) + r"\.(partial|old)-\d+(-[0-9a-f]{6})?")
    try:
        return [path.with_name(name) for name in os.listdir(path.parent) if pattern.fullmatch(name)]
    except OSError:
        return []


def _remove(left: Path) -> None:
    """Remove a file or folder unless a living process writes it."""
    descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not _is_dead(descriptor):
            return
        num_bytes = _num_bytes(left)
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    if num_bytes > _TOLD_BYTES and not os.path.lexists(left):
        warn(f"{left} removed: {num_bytes / 1e6:,.0f} MB that a killed process left.")


def _is_dead(descriptor: int) -> bool:
    """Whether no living process holds this file or folder."""
    try:
        return _lock_now(descriptor)
    except OSError:
        state = os.fstat(descriptor)
        return time.time() - max(state.st_mtime, state.st_ctime) > _OLD_S


def _lock_now(descriptor: int) -> bool:
    """Lock it if nobody else has.

    Raises:
        OSError: There are no locks here.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _num_bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

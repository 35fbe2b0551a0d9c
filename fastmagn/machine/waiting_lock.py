"""A lock that processes wait for: the first one does the work, and the others then find it done."""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

HELD = {errno.EACCES, errno.EAGAIN}  # what locking says where another process holds the lock


@contextmanager
def waiting_lock(path: Path, when_held: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold the lock file `path` in the block, after waiting for as long as another process holds it.

    It is a record lock: the kernel releases it when the process exits, however it exits. The file is removed at the
    end. Where it cannot be made or locked (a read-only folder, a file system without locks), the block runs without a
    lock.

    Args:
        path: The lock file; its folder exists.
        when_held: Called if another process holds the lock; it may raise, instead of waiting.

    Yields:
        Whether the lock is held.
    """
    file = _locked(path, when_held)
    try:
        yield file is not None
    finally:
        if file is not None:
            with suppress(OSError):
                path.unlink()  # before the lock is released: whoever waits for it looks at the path again
            file.close()


def _locked(path: Path, when_held: Callable[[], None]) -> IO[bytes] | None:
    while True:
        try:
            file = path.open("ab")
        except OSError:
            return None
        if not _lock(file, when_held):
            file.close()
            return None
        if is_at(path, file):
            return file
        file.close()  # its holder has removed it


def _lock(file: IO[bytes], when_held: Callable[[], None]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            return False
        when_held()
        fcntl.lockf(file, fcntl.LOCK_EX)
    return True


def is_at(path: Path, file: IO[Any]) -> bool:
    """Whether this open file is still the one at `path`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False

"""A lock that processes wait for: the first one does the work, and the others then find it done."""

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_HELD = {errno.EACCES, errno.EAGAIN}


@contextmanager
def waiting_lock(path: Path, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file `path` in the block, after waiting for as long as another process holds it.

    It is a record lock: the kernel releases it when the process exits, however it exits. The file stays. Where it
    cannot be made or locked (a read-only folder, a file system without locks), the block runs without a lock.

    Args:
        path: The lock file; its folder is made.
        tell: Called once if another process holds the lock.
    """
    file = _locked(path, tell)
    try:
        yield
    finally:
        if file is not None:
            file.close()


def _locked(path: Path, tell: Callable[[], None]) -> IO[bytes] | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD:
            file.close()
            return None
        tell()
        fcntl.lockf(file, fcntl.LOCK_EX)
    return file

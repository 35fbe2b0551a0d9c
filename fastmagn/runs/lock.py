"""One run at a time in a run folder."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from fastmagn.errors import InputError
from fastmagn.machine.console import warn
from fastmagn.machine.files import make_folder
from fastmagn.machine.processes import World
from fastmagn.machine.waiting_lock import HELD, is_at
from fastmagn.runs.paths import LOCK

PATIENCE_S = 3.0  # a process that was just killed holds it until the kernel has freed its memory


@contextmanager
def run_lock(run_dir: Path, world: World) -> Iterator[None]:
    """Rank 0 holds RUN/.lock for all processes.

    It is a record lock: the kernel releases it when the process exits, however it exits, and forked children do not
    inherit it. On a file system without locks there is a warning.

    Raises:
        InputError: Another process holds the lock, or the run folder cannot be made or written.
    """
    new = [folder for folder in (run_dir, *run_dir.parents) if world.rank == 0 and not os.path.exists(folder)]
    file, refused = _take(run_dir) if world.rank == 0 else (None, None)
    refused = world.gather(refused)[0]
    if refused:
        raise InputError(refused)
    try:
        yield
    except BaseException:
        if new:
            _remove_if_unused(run_dir, new)
        raise
    finally:
        if file is not None:
            file.close()


def _remove_if_unused(run_dir: Path, new: Sequence[Path]) -> None:
    """Remove the folders that a refused run has made, the innermost first, if they hold nothing but its lock."""
    with suppress(OSError):
        if os.listdir(run_dir) == [LOCK]:
            (run_dir / LOCK).unlink()
            for folder in new:
                folder.rmdir()


def _take(run_dir: Path) -> tuple[IO[str] | None, str | None]:
    """The locked file (None where there are no locks), and the reason why the run must not start (None to start)."""
    path = run_dir / LOCK
    try:
        make_folder(run_dir)
        file = path.open("a+")
    except OSError as error:
        return None, f"run_dir: {run_dir} cannot be written ({error.strerror}); name another --run_dir."
    failure = _lock(file)
    if failure is None and not is_at(path, file):  # a refused run has removed it meanwhile
        file.close()
        return _take(run_dir)
    if failure is None:
        _sign(file)
        return file, None
    holder = _holder(file)
    file.close()
    if failure.errno in HELD:
        return None, f"run_dir: {run_dir} is in use by {holder}; stop it, or name another --run_dir."
    warn(f"{path} cannot be locked ({failure.strerror}): make sure that only one run at a time uses this folder.")
    return None, None


def _lock(file: IO[str]) -> OSError | None:
    """Lock the file, waiting for up to PATIENCE_S while another process holds it; the error if that fails."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD or time.monotonic() > deadline:
                return error
            time.sleep(0.1)
        else:
            return None


def _sign(file: IO[str]) -> None:
    """Write into the file who holds it, for the message of other processes. A full disk is not a reason to stop."""
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    except OSError as error:
        warn(f"{file.name} cannot be written ({error.strerror}).")


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read(200).strip() or "another process"

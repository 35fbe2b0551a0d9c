"""Writes files so that a reader sees either the old one or the new one, never half of one."""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fastmagn.errors import InputError
from fastmagn.machine.leftovers import hold, names_locked, old_path, partial_path, remove_leftovers

DISK_FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path`, to write and read. On success it is flushed and renamed to `path`, else removed.

    What dead processes left beside `path` is removed.

    Raises:
        OSError: `path` is a device or another special file, which a rename would replace; or the disk fails.
    """
    if is_special(path):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    make_folder(path.parent)
    remove_leftovers(path)
    with _failures_named(path):
        partial, file = _open_partial(path)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(partial, path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Make an empty folder beside `path`, to be filled; on success it takes the place of `path`, else it is removed.

    A reader sees the old folder or the new one, or none for an instant. An empty folder at `path`, and the one that
    this process works in, stay and are filled, so that no shell is left in a folder that is gone; for an instant they
    hold a part. In any case the mode and the group of a folder at `path` stay. Of several processes that do this at
    once, the last one's folder stays. The caller flushes the files (`replace_file` does). What dead processes left is
    removed.

    Args:
        path: The folder; links are followed.
        overwrite: Whether an older folder at `path` is removed. If not, `path` must be free or an empty folder.

    Raises:
        OSError: `path` is taken, or the disk fails; what was at `path` is still there.
    """
    path = Path(os.path.realpath(path))
    make_folder(path.parent)
    remove_leftovers(path)
    with _failures_named(path):
        partial, descriptor = _make_partial(path)
        old = old_path(path)
        try:
            _prepare_like(path, partial)
            yield partial
            sync_folder(partial)
            with names_locked(path.parent):
                if _is_kept(path, overwrite):
                    _refill(path, partial, old)
                else:
                    _swap(path, partial, old, overwrite)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
            os.close(descriptor)


def _prepare_like(path: Path, partial: Path) -> None:
    """Give `partial` the group and the mode of a folder at `path`, as far as this user may."""
    if path.is_dir():
        status = path.stat()
        with suppress(OSError):
            os.chown(partial, -1, status.st_gid)
        with suppress(OSError):
            partial.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def _is_kept(path: Path, overwrite: bool) -> bool:
    """Whether the folder at `path` is to be filled and not to be replaced: it is empty, or this process works in it."""
    if not path.is_dir():
        return False
    if not any(path.iterdir()):
        return True
    with suppress(OSError):  # the folder that this process works in may be gone
        return overwrite and path.samefile(os.curdir)
    return False


def _refill(path: Path, partial: Path, old: Path) -> None:
    """Move what `path` holds to `old`, and what `partial` holds to `path`, the newest last; undone if a move fails."""
    content = list(path.iterdir())
    if content:
        old.mkdir()
    made = sorted(partial.iterdir(), key=lambda entry: entry.stat().st_mtime_ns)
    moves = [(entry, old / entry.name) for entry in content] + [(entry, path / entry.name) for entry in made]
    try:
        for source, target in moves:
            os.rename(source, target)
    except BaseException:
        for source, target in reversed(moves):
            if os.path.lexists(target) and not os.path.lexists(source):
                os.rename(target, source)
        raise
    sync_folder(path)


def _swap(path: Path, partial: Path, old: Path, overwrite: bool) -> None:
    """Rename `partial` to `path`, and what was there, if it may be replaced, to `old`; undone if a rename fails."""
    try:
        if overwrite and path.is_dir():
            os.rename(path, old)
        os.rename(partial, path)
    finally:
        if old.exists() and not path.exists():
            os.rename(old, path)


@contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    """Name `path` in a failure of the disk: write and fsync know no name, other calls that of the partial file."""
    try:
        yield
    except OSError as error:
        is_unnamed = error.filename is None and (error.errno is None or error.errno in DISK_FAILURES)
        if is_unnamed or str(error.filename).startswith(f"{path}.partial-"):
            error.filename = str(path)
        raise


def _open_partial(path: Path) -> tuple[Path, IO[bytes]]:
    while True:
        partial = partial_path(path)
        file = partial.open("x+b")
        if hold(partial, file.fileno()):
            return partial, file
        file.close()


def _make_partial(path: Path) -> tuple[Path, int]:
    while True:
        partial = partial_path(path)
        partial.mkdir()
        with suppress(FileNotFoundError):
            descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
            if hold(partial, descriptor):
                return partial, descriptor
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each of which survives a power cut. It may be there already."""
    if folder.is_dir():
        return
    if not folder.parent.exists():
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, so that a rename survives a power cut. Some file systems cannot do this."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace the file `path` with `content`."""
    with replace_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Replace the file `path` with `text`, UTF-8. Bytes of file names that are not UTF-8 are written as escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace the file `path` with `value` as strict, indented JSON. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def is_special(path: Path) -> bool:
    """Whether there is something, behind links too, that is neither a file nor a folder, such as a device."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_writable(path: Path, folder: Path, field: str = "out", may_be_read_only: bool = False) -> None:
    """Check that `path` can be written into `folder`, which need not be there yet: before the work, not after it.

    Raises:
        InputError: The folder, or the nearest one above it that is there, is a file, or is read-only unless it may be;
            or `path` is a device or another special file.
    """
    reason = why_not_writable(path, folder, may_be_read_only)
    if reason is not None:
        raise InputError(f"{field}: {reason}; name another --{field}.")


def why_not_writable(path: Path, folder: Path, may_be_read_only: bool = False) -> str | None:
    """What `check_writable` says is wrong, with the place; None if nothing is."""
    if is_special(path):
        return f"{path} is not a regular file"
    there = _nearest(folder)
    if not there.is_dir():
        return f"{path} cannot be written: {there} is not a folder"
    if not may_be_read_only and not os.access(there, os.W_OK | os.X_OK):
        return f"{path} cannot be written: {there} is read-only"
    return None


def check_room(folder: Path, num_bytes: int) -> None:
    """Raise OSError (ENOSPC) unless the disk of a folder, which may be still to be made, has room.

    A quota shows only when writing.
    """
    free = shutil.disk_usage(_nearest(folder)).free
    if free < num_bytes:
        raise OSError(errno.ENOSPC, f"it needs {_mb(num_bytes)}, and the disk has {_mb(free)}", str(folder))


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    whole = folder.absolute()
    return next(place for place in (whole, *whole.parents) if os.path.exists(place))


def os_error_behind(error: BaseException) -> BaseException:
    """The OSError or interruption that PyTorch wrapped in a RuntimeError; else the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError | KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return error if cause is None else cause


def _mb(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"

"""RUN/checkpoints. The newest is last.pt, which exists at every instant once written; older ones: step-00001234.pt."""

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from fastmagn.errors import InputError
from fastmagn.machine.console import console, warn
from fastmagn.machine.files import check_room, make_folder, sync_folder
from fastmagn.machine.leftovers import partial_path, remove_leftovers
from fastmagn.runs.checksum import find_damage, stored_step
from fastmagn.runs.paths import (
    CHECKPOINTS,
    CONFIG,
    EVALUATION,
    LOGITS,
    METRICS,
    RESULTS,
    VIEWS,
    last_checkpoint,
    step_checkpoint,
    step_checkpoints,
)

_WRITTEN = (CONFIG, METRICS, RESULTS, VIEWS)  # in the run folder, under the run's lock
_MEASURED = (RESULTS, EVALUATION, LOGITS)
_WRITTEN_BY_OTHERS = (LOGITS, EVALUATION)  # evaluate needs no lock of the run


def put_checkpoint(run_dir: Path, step: int, num_bytes: int, keep: int, write: Callable[[Path], None]) -> None:
    """Make a new last.pt. The previous one is kept under its step's name until it is too old.

    Args:
        run_dir: The run folder.
        step: Steps done.
        num_bytes: Approximate size of the new file.
        keep: Checkpoints to keep, 1 or more, including the new one.
        write: Replaces the file that it is given with the new checkpoint, in one rename.

    Raises:
        OSError: The disk is full or the file cannot be written; last.pt is unchanged.
    """
    last = last_checkpoint(run_dir)
    make_folder(last.parent)
    previous = stored_step(last) if last.exists() else None
    if keep > 1 and previous is not None and previous != step:
        with suppress(OSError):  # neither hard links nor room for a copy: the new checkpoint matters more
            _link(last, step_checkpoint(run_dir, previous))
    try:
        check_room(last.parent, num_bytes)
    except OSError:
        _remove_old(run_dir, keep - 1, step)  # they are about to be too old anyway
        check_room(last.parent, num_bytes)
    write(last)
    _remove_old(run_dir, keep - 1, step)


def newest_whole_checkpoint(run_dir: Path) -> Path | None:
    """last.pt, or None if the run has no checkpoint.

    If last.pt is damaged or missing, the newest intact checkpoint before it takes its place, with a warning. Damaged
    files get the further suffix `.damaged`; none is removed.

    Raises:
        InputError: There are checkpoints, but none is intact.
    """
    last = last_checkpoint(run_dir)
    damaged: dict[Path, str] = {}
    for path in [last, *step_checkpoints(run_dir).values()]:
        reason = _damage(path)
        if reason is None:
            if path != last:
                _put_in_place(path, last, damaged)
            return last
        damaged[path] = reason
    if not any(path.exists() for path in damaged):
        return None
    older = "; ".join(f"{path.name} {reason}" for path, reason in damaged.items() if path != last)
    others = f"no older checkpoint is intact: {older}" if older else "there is no older checkpoint"
    raise InputError(
        f"{last}: {damaged[last]}, and {others}. Put an intact copy in its place, remove {last.parent}, or name another"
        " --run_dir to train from scratch."
    )


def remove_partial_files(run_dir: Path) -> None:
    """Remove what a killed process left half written. Call it only while holding the run's lock.

    The files of an evaluation that is under way stay.
    """
    partial = list((run_dir / CHECKPOINTS).glob("*.partial-*"))
    for name in _WRITTEN:
        partial += run_dir.glob(f"{name}.partial-*")
    for path in partial:
        path.unlink(missing_ok=True)
    for name in _WRITTEN_BY_OTHERS:
        remove_leftovers(run_dir / name)


def put_results_aside(run_dir: Path) -> None:
    """Rename what was measured of an earlier training in the folder, to `NAME.before`.

    This replaces all that was renamed before, so that what stands there is of one training. Call it only while holding
    the run's lock.

    Raises:
        InputError: It cannot be renamed.
    """
    found = [run_dir / name for name in _MEASURED if is_measured(run_dir / name)]
    try:
        for name in _MEASURED if found else ():
            path = _aside(run_dir / name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for path in found:
            os.replace(path, _aside(path))
            console.print(f"{path} is of an earlier training; it is now {_aside(path).name}.", soft_wrap=True)
    except OSError as error:
        raise InputError(
            f"{path}: is of an earlier training, and cannot be put aside ({error.strerror or error}). Remove it, or"
            " name another --run_dir."
        ) from error


def is_measured(path: Path) -> bool:
    """Whether a file of results is there, or a folder that holds something or cannot be listed."""
    if path.is_dir():
        with suppress(OSError):
            return any(path.iterdir())
    return path.exists()


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def _damage(path: Path) -> str | None:
    """The damage of a checkpoint, phrased to follow its name; None if it is intact."""
    if not path.exists():
        return "is missing"
    if not path.is_file():
        return "is not a file"
    try:
        with path.open("rb") as file:
            return find_damage(file)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _put_in_place(path: Path, last: Path, damaged: dict[Path, str]) -> None:
    """Make an intact checkpoint last.pt, without an instant at which there is none; rename the damaged ones."""
    names = ", ".join(f"{bad} {reason}" for bad, reason in damaged.items())
    warn(f"{names}; resuming from the checkpoint before, {path.name}.")
    for bad in damaged:
        if bad.exists():
            aside = _unused(f"{bad}.damaged{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
            _link(bad, aside)
            if bad != last:
                bad.unlink()
    _link(path, last)


def _unused(names: Iterable[str]) -> Path:
    return next(path for path in map(Path, names) if not path.exists())


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, replacing what had that name; a copy where the file system has no hard links."""
    partial = partial_path(target)
    try:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
        os.replace(partial, target)
        sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)  # a rename between two names of one file does nothing


def _remove_old(run_dir: Path, keep: int, step: int) -> None:
    """Remove the checkpoints that have a step's name, except the `keep` newest before `step`."""
    older = step_checkpoints(run_dir)
    kept = [before for before in older if before < step][:keep]
    for before, path in older.items():
        if before not in kept:
            path.unlink(missing_ok=True)

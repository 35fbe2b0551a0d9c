"""Save and restore a run. Only finite states are saved, and a full disk costs no checkpoint that exists."""

import dataclasses
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.errors import InputError, check, one_line
from fastmagn.machine.console import console, warn
from fastmagn.machine.files import os_error_behind, write_text
from fastmagn.machine.torchrun import NO_RUN_ID, agent, max_restarts, restart_count, run_id
from fastmagn.runs.changes import VALIDATION_FIELDS
from fastmagn.runs.checkpoint import (
    check_engine,
    check_same_recipe,
    check_same_run,
    load_model,
    read_checkpoint,
    save_checkpoint,
    warn_of_other_decoder,
)
from fastmagn.runs.checkpoint_folder import newest_whole_checkpoint, put_checkpoint, remove_partial_files
from fastmagn.runs.failures import is_of_the_machine
from fastmagn.runs.paths import STARTED_BY, last_checkpoint, step_checkpoints
from fastmagn.runs.progress import Progress
from fastmagn.training.build import share_statistics
from fastmagn.training.ema import update_equal_average
from fastmagn.training.same_images import decoder_of, fingerprint_of_all, warn_of_unlike_decoders
from fastmagn.training.snapshot import on_host, tensors_in
from fastmagn.training.step import Run

NOT_FINITE = "got a value that is not finite at step"  # the message of a training that diverged
# How often finiteness is checked (that waits for the device) and a failed checkpoint is retried.
CHECK_EVERY_STEPS = 200
LAST_TRIES, LAST_PAUSE_S = 3, 2.0
EXIT_PATIENCE_S = 2.0  # after an interruption that does not wait, such as a second Ctrl-C
_HEADER_BYTES = 1 << 20  # for names, configuration, rows


def average_epoch(run: Run, epoch: int) -> None:
    """Add the weights at the end of an averaged epoch to the equal average. Epochs count from 0."""
    if run.average is not None and run.first_averaged is not None and epoch >= run.first_averaged:
        update_equal_average(run.average, run.model, epoch - run.first_averaged)


def copy_until_averaged(run: Run, progress: Progress) -> None:
    """Before the first averaged epoch has ended, the equal average is a copy of the model, which is then measured."""
    if run.average is not None and run.first_averaged is not None and progress.epoch <= run.first_averaged:
        update_equal_average(run.average, run.model, 0)


def save(run: Run, progress: Progress, after: Callable[[], None] | None = None) -> None:
    """Begin to save the run as its last checkpoint. All processes take part, and a thread of rank 0 writes.

    It writes a copy in the host's memory, so training can continue. There is one copy at a time: the write before is
    waited for first. `settle` says how this one ended. If it fails, a warning says why; the checkpoint before stays.

    Args:
        run: The run.
        progress: Its position.
        after: Called by the thread once the checkpoint is on disk, or has failed.

    Raises:
        InputError: A logged quantity or a weight is not finite; the checkpoint before stays.
    """
    settle(run, progress)
    check_finite(run, progress)
    share_statistics(run)
    copy_until_averaged(run, progress)
    progress.tick()
    sums = progress.sums if progress.sums is None else run.world.mean(progress.sums)
    if run.world.rank == 0:
        write = _prepare_write(run, dataclasses.replace(progress, sums=sums))

        def write_and_tell() -> bool:
            is_saved = write()
            if after is not None:
                after()
            return is_saved

        run.writing.start(write_and_tell)
    progress.unsettled = True


def settle(run: Run, progress: Progress) -> bool:
    """Wait for the checkpoint that is being written. All processes take part.

    Returns:
        Whether the last checkpoint is on disk; `progress.unsaved` is the opposite.
    """
    if progress.unsettled:
        failed = run.writing.take() is False
        progress.unsettled, progress.unsaved = False, bool(run.world.max(failed))
    return not progress.unsaved


@contextmanager
def written_at_the_end(run: Run) -> Iterator[None]:
    """Wait for the checkpoint that is being written, whatever ends this; an interruption waits for two seconds only."""
    try:
        try:
            yield
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                run.writing.wait()
            raise
    except KeyboardInterrupt as interrupted:
        run.writing.leave(EXIT_PATIENCE_S, getattr(interrupted, "exit_status", 128 + signal.SIGINT))
        raise


def save_at_last(run: Run, progress: Progress) -> None:
    """Before the process exits, try again to save what could not be saved.

    Raises:
        InputError: It still cannot be saved.
    """
    for pause_s in (0.0, *[LAST_PAUSE_S] * (LAST_TRIES - 1)):
        if settle(run, progress):
            return
        time.sleep(pause_s)
        save(run, progress)
    if not settle(run, progress):
        raise InputError(_lost(run, progress))


@contextmanager
def saved_however_it_ends(run: Run, progress: Progress) -> Iterator[None]:
    """Try again to save what could not be saved: before what is done inside, and after it, also if it fails.

    Raises:
        InputError: It still cannot be saved. If what is done inside fails, this is a warning.
    """
    with written_at_the_end(run):
        if progress.unsaved:
            save(run, progress)
        try:
            try:
                yield
            finally:
                progress.skip()  # measuring is not training
        except BaseException as error:
            if run.world.size == 1:  # the other processes may be waiting for something else
                _save_despite(error, run, progress)
            raise
        save_at_last(run, progress)


def _save_despite(error: BaseException, run: Run, progress: Progress) -> None:
    """Try again to save after an error; after an interruption once, without waiting for a disk that hangs."""
    try:
        if not isinstance(error, KeyboardInterrupt):
            save_at_last(run, progress)
        elif not run.writing.is_under_way() and not settle(run, progress):
            save(run, progress)
            run.writing.wait(EXIT_PATIENCE_S)
            if not run.writing.is_under_way() and not settle(run, progress):
                warn(_lost(run, progress))
    except InputError as failure:
        warn(str(failure))
    except Exception as failure:  # such as of a lost device, which holds the weights
        warn(f"{_lost(run, progress)} ({one_line(failure)})")


def _lost(run: Run, progress: Progress) -> str:
    path = last_checkpoint(run.config.run_folder)
    there = f"the same command resumes from {path}, which is older" if path.exists() else "there is no checkpoint"
    return (
        f"run_dir: the weights of step {run.steps_done(progress)} could not be saved in {path.parent}, and are lost;"
        f" {there}. Make room first."
    )


def is_check_due(run: Run, progress: Progress) -> bool:
    """Whether to look, after this step, for what is not finite and for a checkpoint that could not be saved."""
    return run.steps_done(progress) % CHECK_EVERY_STEPS == 0


def check_step(run: Run, progress: Progress) -> None:
    """Look for both; a checkpoint that is still being written is left alone.

    Raises:
        InputError: A logged quantity or a weight is not finite.
    """
    check_finite(run, progress)
    if progress.unsettled and not run.world.max(run.writing.is_under_way()):
        settle(run, progress)


def is_save_due(run: Run, progress: Progress) -> bool:
    """Whether to save after this step. The last step of an epoch is followed by a checkpoint anyway."""
    step, every = run.steps_done(progress), run.config.train.checkpoint_every_steps
    due = (every and step % every == 0) or (progress.unsaved and step % CHECK_EVERY_STEPS == 0)
    return bool(due) and progress.step_in_epoch < run.source.steps_per_epoch


def _prepare_write(run: Run, progress: Progress) -> Callable[[], bool]:
    """Copy what a checkpoint holds. The returned function writes the copy; if the disk refuses it, it warns: False."""
    config, step = run.config, run.steps_done(progress)
    parts = {"model": run.model, "optimizer": run.optimizer, "scaler": run.scaler, "average": run.average}
    states = {name: part.state_dict() for name, part in parts.items() if part is not None}
    if run.averaged_statistics:
        states["statistics"] = run.averaged_statistics
    num_bytes = _HEADER_BYTES + sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(states))
    (states, position), wait_for_copies = on_host((states, vars(progress)))
    kept = {
        **{"step": step, "progress": Progress(**position), "config": flatten(config)},
        **{"data_fingerprint": run.image_set.fingerprint, "recipe": run.main_stage.recipe},
        **{"decoder": decoder_of(run), **states},
    }

    def write() -> bool:
        wait_for_copies()
        try:
            put_checkpoint(
                config.run_folder,
                step,
                num_bytes,
                config.train.keep_checkpoints,
                lambda path: save_checkpoint(path, **kept),
            )
        except (OSError, RuntimeError) as error:
            cause = os_error_behind(error)
            if not isinstance(cause, OSError):
                raise cause  # noqa: B904
            folder = last_checkpoint(config.run_folder).parent
            again = f"The run continues and tries again every {CHECK_EVERY_STEPS} steps and at the end of each epoch."
            if step >= run.last_step:
                again = "It is the last one: without room at the end of the run, its weights are lost."
            warn(f"checkpoint of step {step} NOT SAVED in {folder}: {cause.strerror}. {again} Make room there.")
            return False
        if progress.unsaved:
            console.print(f"checkpoint of step {step} saved", soft_wrap=True)
        return True

    return write


def check_finite(run: Run, progress: Progress) -> None:
    """Raise InputError with the quantity and the step at which training stopped being finite. Waits for the device.

    Each loss belongs to the weights before its step. So if all losses are finite and a weight is not, the gradient of
    the last step was not finite.
    """
    bad = progress.bad_part()
    if bad is None and (name := _bad_weight(run)) is not None:
        bad = name, run.steps_done(progress) - 1
    found = [entry for entry in run.world.gather(bad) if entry is not None]
    if found:
        name, step = min(found, key=lambda entry: entry[1])
        run.writing.wait()
        checkpoint = last_checkpoint(run.config.run_folder)
        is_there = run.world.max(run.world.rank == 0 and checkpoint.exists())  # the other ranks wait for the write
        good = f"the last good checkpoint is {checkpoint}" if is_there else "there is no checkpoint yet"
        raise InputError(
            f"{name}: {NOT_FINITE} {step} (epoch {progress.epoch + 1}); expected a finite"
            f" number. Lower optim.lr (it is {run.config.optim.lr}); {good}."
        )


def _bad_weight(run: Run) -> str | None:
    """The first value of a checkpoint's contents that is not finite; None if all are. Waits for the device once."""
    named = {f"gradient of {name}": parameter for name, parameter in run.model.named_parameters()}
    named |= dict(run.model.named_buffers())
    if run.average is not None:
        named |= {f"average of {name}": value for name, value in run.average.state_dict().items()}
    named |= {f"optimizer state {i}": value for i, value in enumerate(tensors_in(run.optimizer.state_dict()["state"]))}
    named = {name: value.detach() for name, value in named.items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all().to(run.device) for value in named.values()])
    return None if bool(finite.all()) else list(named)[finite.tolist().index(False)]


def restore(run: Run) -> tuple[Progress, dict[str, Any] | None]:
    """Load the newest intact checkpoint into everything that trains.

    Returns:
        The position of the run, or its beginning; the flat configuration of the checkpoint, None without one.

    Raises:
        InputError: `resume` is never and there is a checkpoint; no checkpoint is intact; the checkpoint belongs to
            another configuration or other data; some processes do not see it, or have other images.
    """
    config, path = run.config, last_checkpoint(run.config.run_folder)
    restarts = run.world.max(restart_count())  # each host counts its own restarts
    refused = run.world.gather(_prepare_folder(run, restarts) if run.world.rank == 0 else None)[0]
    if refused:
        raise InputError(refused)
    # Reads images in files: now, not at the first checkpoint.
    fingerprint = fingerprint_of_all(run.world, config, "training", lambda: run.image_set.fingerprint)
    warn_of_unlike_decoders(run)
    seen = run.world.gather(path.exists())
    if not any(seen):
        return Progress(), None
    if not all(seen):
        missing = ", ".join(str(rank) for rank, sees in enumerate(seen) if not sees)
        raise InputError(f"run_dir: {path} is not there for rank {missing}; expected a folder that all hosts share.")
    state = read_checkpoint(path, run.device)
    check_same_run(state, flatten(config), fingerprint, path, run.image_set.former_fingerprint)
    check_same_recipe(state, run.main_stage.recipe, path)
    load_model(state, run.model, path)
    if run.average is not None:
        load_model(state, run.average, path, weights="ema")
    try:
        _restore_statistics(run, state.get("statistics"))
        run.optimizer.load_state_dict(state["optimizer"])
        run.scaler.load_state_dict(state["scaler"])
        progress = _progress(state["progress"])
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        if is_of_the_machine(error):
            raise
        raise InputError(f"{path}: its optimiser state does not fit this run; name another --run_dir.") from error
    done = run.steps_done(progress)
    check(
        done <= run.last_step,
        "train.max_steps",
        config.train.max_steps,
        f"0 for all steps, or at least {done}, which {path} has",
    )
    check_engine(state, config.augment.backend, done >= run.last_step, path)
    if done < run.last_step:
        warn_of_other_decoder(state, decoder_of(run), path)
        # Drop the row of an epoch that train.max_steps cut short.
        progress.rows = [row for row in progress.rows if row["epoch"] < progress.epoch]
    elif run.average is not None:
        run.averaged_statistics.update(state.get("statistics") or {})
    before, now = flatten(Config()) | state["config"], flatten(config)
    has_draws = run.main_stage.method.test_time is not None
    read = [name for name in VALIDATION_FIELDS if has_draws or name != "eval.rse_draws"]
    if any(before[name] != now[name] for name in read):
        progress.measured_alike_from = len(progress.rows)
    return progress, state["config"]


@torch.no_grad()
def _restore_statistics(run: Run, kept: dict[str, Any] | None) -> None:
    """Give the average the batch statistics that further epochs average on, if those beside it were measured."""
    if run.average is not None and kept:
        for name, buffer in run.average.named_buffers():
            buffer.copy_(kept[name])


def _progress(kept: dict[str, Any]) -> Progress:
    """The position in a checkpoint. Earlier versions counted only the time of training."""
    counted = {"epoch_wall_s": kept["epoch_s"], "train_wall_s": kept["train_s"]}
    return Progress(**{**counted, **kept, "names": tuple(kept["names"])})


def _prepare_folder(run: Run, restarts: int) -> str | None:
    """Make last.pt intact, if there is any checkpoint; the reason why the run must not start, or None."""
    config, mark = run.config, run.config.run_folder / STARTED_BY
    found = [last_checkpoint(config.run_folder), *step_checkpoints(config.run_folder).values()]
    path = next((path for path in found if path.exists()), None)
    if config.resume == "never":
        if path and not _is_of_this_torchrun(mark, restarts):
            return f"resume: got 'never', but {path} is there; name another --run_dir to train from scratch."
        if max_restarts():
            with suppress(OSError):
                write_text(mark, f"{agent()}\n{run_id()}")
    remove_partial_files(config.run_folder)
    try:
        newest_whole_checkpoint(config.run_folder)
    except InputError as error:
        return str(error)
    return None


def _is_of_this_torchrun(mark: Path, restarts: int) -> bool:
    """Whether the torchrun that started this process has begun the run: it starts all processes again after a failure.

    If rank 0 is on another host since, the number of restarts and the run id (`--rdzv_id`) say so.
    """
    try:
        begun_by, begun_as = mark.read_text().split("\n")
    except (OSError, ValueError):
        return False
    return begun_by == agent() or (restarts > 0 and begun_as == run_id() != NO_RUN_ID)

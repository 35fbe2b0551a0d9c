"""The epochs of a run."""

import copy
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from fastmagn.augment.policies.recipe import policy_file
from fastmagn.config.own_code import source_of
from fastmagn.config.text import to_yaml
from fastmagn.data import Batch, ImagePart
from fastmagn.errors import Interrupted
from fastmagn.evaluation.measure import predict
from fastmagn.machine.console import console
from fastmagn.machine.hardware import precision
from fastmagn.machine.signals import interruptible
from fastmagn.machine.waiting import crowd_watch
from fastmagn.methods.method import LossParts
from fastmagn.runs.failures import explain_measuring
from fastmagn.runs.paths import PROFILE
from fastmagn.runs.progress import Progress
from fastmagn.runs.records import RunFiles
from fastmagn.runs.wandb import log_row
from fastmagn.training.build import measured_model, share_statistics
from fastmagn.training.callbacks import Callbacks, EpochDone, StepDone
from fastmagn.training.display import EpochTable, num_epochs, progress_display
from fastmagn.training.prefetch import made_ahead
from fastmagn.training.profiling import profiled
from fastmagn.training.saving import (
    average_epoch,
    check_finite,
    check_step,
    copy_until_averaged,
    is_check_due,
    is_save_due,
    save,
    save_at_last,
    settle,
    written_at_the_end,
)
from fastmagn.training.step import Piece, Run, _tensors, make_pieces, prepared, train_step
from fastmagn.training.view_grid import view_grid

AGREE_EVERY_STEPS = 10  # how often several processes agree whether to stop


def run_batches(run: Run, progress: Progress) -> Generator[tuple[Batch, int], None, None]:
    """The batches from `progress` to the last step of the run, across epochs, each with its epoch."""
    epoch, step, steps_left = progress.epoch, progress.step_in_epoch, run.last_step - run.steps_done(progress)
    while steps_left > 0:
        with closing(run.source.batches(epoch, step)) as batches:
            for batch in islice(batches, steps_left):
                yield batch, epoch
                steps_left -= 1
        epoch, step = epoch + 1, 0


def train_epoch(
    run: Run,
    progress: Progress,
    ahead: Iterator[list[Piece]],
    signal_received: Callable[[], int],
    after_step: Callable[[LossParts], None],
) -> bool:
    """Train from `progress` to the end of the epoch, updating `progress` at each step. Returns False if stopped early.

    Args:
        run: The run.
        progress: Its position.
        ahead: The pieces of each step of the run from `progress` on. Only those of this epoch are taken.
        signal_received: The number of the signal that arrived; 0 if none did.
        after_step: Called after each step with what `train_step` returns.

    Raises:
        InputError: A loss or a gradient is not finite.
    """
    run.model.train()
    first_step = progress.epoch * run.source.steps_per_epoch
    last_step = min(first_step + run.source.steps_per_epoch, run.last_step)
    epoch_s_before, start = progress.epoch_s, time.perf_counter()
    for step in range(first_step + progress.step_in_epoch, last_step):
        parts = train_step(run, next(ahead), step)
        progress.add(parts, step)
        progress.epoch_s = epoch_s_before + time.perf_counter() - start
        after_step(parts)
        if is_check_due(run, progress):
            check_step(run, progress)
        asks = run.world.size == 1 or (step + 1) % AGREE_EVERY_STEPS == 0
        if asks and step + 1 < run.last_step and run.world.max(signal_received()):
            progress.epoch_s = epoch_s_before + _synchronised(run) - start
            return False
        if is_save_due(run, progress):
            progress.epoch_s = epoch_s_before + _synchronised(run) - start
            save(run, progress)
            start = time.perf_counter() - (progress.epoch_s - epoch_s_before)  # saving is not training
    is_whole = progress.step_in_epoch == run.source.steps_per_epoch
    if is_whole:
        average_epoch(run, progress.epoch)
    copy_until_averaged(run, progress)
    progress.epoch_s = epoch_s_before + _synchronised(run) - start
    return True


def _synchronised(run: Run) -> float:
    """The time, s, by a clock that only runs forward, once all steps have ended: the device may still be at them."""
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)
    return time.perf_counter()


def finish_epoch(run: Run, progress: Progress, validation: ImagePart) -> dict[str, Any]:
    """The row of an epoch for metrics.jsonl: means over its steps and all processes, validation accuracy, speeds.

    `epoch_s` and `images_per_s` are those of training alone. `wall_s` and `wall_images_per_s` are what a person waits
    for, since the row before: the start, training, validation, and what of the checkpoint before was not written
    meanwhile.

    Raises:
        InputError: A loss was not finite. The last checkpoint is then the one before this epoch.
    """
    check_finite(run, progress)
    assert progress.sums is not None
    steps, config = progress.step_in_epoch, run.config
    means = (run.world.mean(progress.sums) / steps).tolist()
    row = {"epoch": progress.epoch, "step": run.steps_done(progress), "lr": run.optimizer.param_groups[0]["lr"]}
    row |= dict(zip(progress.names, means, strict=True))
    if len(validation.labels):
        row["validation_accuracy"] = validation_accuracy(run, validation)
    progress.tick()
    images = steps * config.train.batch_size
    row |= {"images_per_s": images / progress.epoch_s, "epoch_s": progress.epoch_s}
    return row | {"wall_images_per_s": images / progress.epoch_wall_s, "wall_s": progress.epoch_wall_s}


def validation_accuracy(run: Run, validation: ImagePart) -> float:
    """The accuracy on the held-out images; each process measures a share of them."""
    share_statistics(run)
    share, config = run.world.share(len(validation.labels)), run.config
    labels, correct = validation.labels[share], 0
    if len(labels):
        with explain_measuring(config.device, config.eval.batch_size):
            logits = predict(
                measured_model(run).eval(),
                validation.images_u8[share],
                device=run.device,
                amp=config.train.amp,
                batch_size=config.eval.batch_size,
            )
        correct = int(np.count_nonzero(logits.argmax(dim=1).cpu().numpy() == labels))
    return sum(run.world.gather(correct)) / len(validation.labels)


def train_all(run: Run, progress: Progress, validation: ImagePart, callbacks: Callbacks) -> None:
    """Train from `progress` to the last step of the run, and leave a checkpoint unless the disk is full.

    A row is written before the checkpoint that holds it. If the process is killed between the two, the resumed run
    trains the epoch again and replaces the row. A checkpoint is written while the next epoch trains, and the epoch's
    line is printed once it is on disk.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived; everything is saved.
        InputError: A loss or a gradient is not finite.
    """
    config, run_dir, writes = run.config, run.config.run_folder, run.world.rank == 0
    table, is_training = EpochTable(num_epochs(run)), _has_more(run, progress)
    num_profiled = config.train.profile if writes else 0
    with (
        interruptible() as signal_received,
        profiled(run_dir / PROFILE, num_profiled, run.device) as trace_step,
        closing(_run_files(run, progress)) if writes else nullcontext() as files,
        progress_display(run, progress, table) as show_step,
        written_at_the_end(run),
        closing(run_batches(run, progress)) as batches,
        closing(made_ahead(batches, lambda batch: make_pieces(run, *batch), _tensors, run.device)) as ahead,
    ):
        if files is not None:
            show_views(run, files)
        watch_crowd = crowd_watch(torch.get_num_threads() if run.device.type == "cpu" else 1)

        def after_step(parts: LossParts) -> None:
            trace_step()
            watch_crowd()
            show_step()
            if callbacks.on_step is not None:
                _tell_step(run, progress, parts, callbacks.on_step)

        while _has_more(run, progress):
            row = None
            if train_epoch(run, progress, ahead, signal_received, after_step):
                row = finish_epoch(run, progress, validation)
                progress.rows.append(row)
                if files is not None:
                    files.add(row)
                    log_row(config, row)
                if callbacks.on_epoch is not None:
                    _tell_epoch(run, row, callbacks.on_epoch)
                if progress.step_in_epoch == run.source.steps_per_epoch:
                    progress.finish_epoch()
            save(run, progress, None if row is None else partial(table.print_row, row))
            if run.steps_done(progress) >= run.last_step:
                settle(run, progress)  # a signal that arrives meanwhile counts
            signal_number = run.world.max(signal_received())
            if signal_number:
                save_at_last(run, progress)
                console.print("interrupted; the same command resumes from the last checkpoint")
                raise Interrupted(signal_number)
    if is_training:
        progress.tick()
    else:
        progress.skip()


def _has_more(run: Run, progress: Progress) -> bool:
    """Whether steps are left, or those of an epoch are done and the process was killed before its end was."""
    lacks_its_row = progress.step_in_epoch > 0 and all(row["epoch"] != progress.epoch for row in progress.rows)
    return run.steps_done(progress) < run.last_step or lacks_its_row


def _run_files(run: Run, progress: Progress) -> RunFiles:
    config = run.config
    policy, code = policy_file(config.augment), source_of(config.imports)
    return RunFiles(config.run_folder, to_yaml(config), progress.rows, policy, code)


def _tell_step(run: Run, progress: Progress, parts: LossParts, on_step: Callable[[StepDone], None]) -> None:
    done, world = run.steps_done(progress), run.world
    on_step(StepDone(done, run.last_step, progress.epoch, parts, run.model, world.rank, world.size))
    run.model.train()


def _tell_epoch(run: Run, row: dict[str, Any], on_epoch: Callable[[EpochDone], None]) -> None:
    world = run.world
    run.model.train()
    on_epoch(EpochDone(copy.deepcopy(row), run.config.train.epochs, run.model, world.rank, world.size))


def finish_average(run: Run, progress: Progress) -> None:
    """Measure the batch statistics of an equal average of the weights on one more epoch of training views, and save.

    The checkpoint also keeps the statistics from before: a run with more `train.max_steps` averages on with these.
    A run that `train.max_steps` ends before the first averaged epoch does has no average: its weights take the place.
    """
    if run.first_averaged is None or run.average is None:
        return
    epoch, is_repeated = run.config.train.epochs, bool(run.averaged_statistics)
    if run.last_step >= (run.first_averaged + 1) * run.source.steps_per_epoch:
        run.averaged_statistics.update({name: value.clone() for name, value in run.average.named_buffers()})
        with closing(run.source.batches(epoch)) as batches, precision(run.device, run.config.train.amp):
            update_bn(_views(run, batches, epoch), run.average)
    if is_repeated:
        progress.skip()
    save(run, progress)


def _views(run: Run, batches: Iterable[Batch], epoch: int) -> Iterator[Tensor]:
    for batch in batches:
        for piece in make_pieces(run, batch, epoch):
            with torch.enable_grad():  # for attacks: `update_bn` has turned gradients off
                views = prepared(run, piece)[0]
            yield views.detach()


def show_views(run: Run, files: RunFiles) -> None:
    """Write a picture of the first views that the method trains on, unless there is one.

    Making these views a second time changes nothing, since every draw depends on epoch and sample only.
    """
    if files.has_views():
        return
    epoch = run.config.train.clean_epochs
    with closing(run.source.batches(epoch)) as batches:
        piece = make_pieces(run, next(batches), epoch)[0]
    titles = run.main_stage.method.view_titles(run.config.augment)
    files.add_views(view_grid(prepared(run, piece)[0], titles))

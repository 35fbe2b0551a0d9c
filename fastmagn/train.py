"""python -m fastmagn.train: train, then evaluate, then RUN/results.json. Also under torchrun, with the same arguments.

A batch's way: data.DeviceSource -> augment.sample_view_params -> augment.make_views (`make_pieces`) -> model and loss
(`run.ForwardLoss`) -> optimiser (`train_step`). Ctrl-C or SIGTERM finishes the step, saves a checkpoint and leaves; the
same command goes on from there.
"""

import dataclasses
import json
import shlex
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastmagn.augment.params import sample_view_params
from fastmagn.augment.views import choose_engine, make_views
from fastmagn.cli import parse_config, plain, run_command, to_yaml
from fastmagn.config import Config
from fastmagn.context import StepContext
from fastmagn.data import Batch, FolderSource, ImagePart, load_data, split_validation
from fastmagn.distributed import World, join_world
from fastmagn.ema import update_average
from fastmagn.errors import Interrupted
from fastmagn.evaluate import evaluate, predict, use_cache
from fastmagn.failures import explained
from fastmagn.files import write_json
from fastmagn.hardware import set_backends, settle_hardware
from fastmagn.live import live_display
from fastmagn.methods import LossParts
from fastmagn.optim import learning_rate, set_learning_rate
from fastmagn.prefetch import made_ahead
from fastmagn.profiling import profiled
from fastmagn.progress import Progress
from fastmagn.run import Run, build_run, measured_model, share_statistics
from fastmagn.run_files import RunFiles
from fastmagn.run_lock import run_lock
from fastmagn.runlog import console, environment, log_results, print_epoch, print_results
from fastmagn.saving import CHECK_EVERY_STEPS, check_finite, is_save_due, restore, save, save_at_last
from fastmagn.signals import interruptible
from fastmagn.view_grid import view_grid, view_titles
from fastmagn.wandb_log import check_wandb, finish_with, log_row

AGREE_EVERY_STEPS = 10  # several processes ask each other whether to stop


class Piece(NamedTuple):
    """A step's images, or a part of them, in all their views: float [V*B, 3, H, W], and the batch they were made of."""

    views: Tensor
    batch: Batch
    epoch: int

    def tensors(self) -> list[Tensor]:
        """What is on the device."""
        return [self.views, self.batch.images, self.batch.labels]


def make_pieces(run: Run, batch: Batch, epoch: int) -> list[Piece]:
    """The views of a step's images uint8 [B, 3, H, W], in `train.accumulation_steps` pieces; epoch counts from 0."""
    config, view_spec = run.config, run.stage(epoch).view_spec
    pieces = []
    for part in batch.pieces(config.train.accumulation_steps):
        params = sample_view_params(config.train.seed, epoch, part.indices, view_spec, config.augment, run.image_size)
        pieces.append(Piece(make_views(part.images, params, config.augment.backend).images, part, epoch))
    return pieces


def train_step(run: Run, pieces: list[Piece], step: int) -> LossParts:
    """One optimiser step: one fused forward, loss and backward for each piece, update. No host synchronisation.

    Args:
        run: The run.
        pieces: From `make_pieces`.
        step: Step of the whole run, from 0, for the learning rate.

    Returns:
        Scalars on the device, of this process's images: the loss, its parts, the accuracy on the first views, which are
        the clean ones where the method has them.
    """
    config = run.config
    lr = learning_rate(step, config.optim, steps_per_epoch=run.source.steps_per_epoch, epochs=config.train.epochs)
    set_learning_rate(run.optimizer, lr)
    means: LossParts = {}
    for piece in pieces:
        forward_loss = run.stage(piece.epoch).forward_loss
        with nullcontext() if piece is pieces[-1] else gradients_stay_here(forward_loss):
            images, targets = prepared(run, piece)
            torch.compiler.cudagraph_mark_step_begin()
            loss, parts = forward_loss(images, targets)
            run.scaler.scale(loss / len(pieces)).backward()
        # New tensors: a CUDA graph's next replay overwrites what this one has returned.
        means = {name: means.get(name, 0.0) + part / len(pieces) for name, part in parts.items()}
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.average is not None:
        update_average(run.average, run.model, config.train.ema_decay, step)
    return means


def prepared(run: Run, piece: Piece) -> tuple[Tensor, Tensor]:
    """What the method forwards of a piece's views, and its targets: attacks and mixing come in here."""
    views, batch, method = piece.views, piece.batch, run.stage(piece.epoch).method
    if method.prepare is None:
        return views, batch.labels
    context = StepContext(
        config=run.config, model=run.model, num_classes=run.num_classes, epoch=piece.epoch, indices=batch.indices
    )
    return method.prepare(views, batch.labels, context)


def gradients_stay_here(forward_loss: nn.Module) -> Any:
    """A context in which backward does not share gradients with the other processes: not yet the step's last piece."""
    return forward_loss.no_sync() if isinstance(forward_loss, DistributedDataParallel) else nullcontext()


def train_epoch(run: Run, progress: Progress, signal_received: Callable[[], int], after_step: Callable) -> bool:
    """Train from `progress` to the end of its epoch; False if stopped before. `progress` follows each step.

    Raises:
        InputError: A loss or a gradient is not finite.
    """
    run.model.train()
    epoch, steps = progress.epoch, run.source.steps_per_epoch
    epoch_s_before, start = progress.epoch_s, time.perf_counter()
    batches = run.source.batches(epoch, progress.step_in_epoch)
    for pieces in made_ahead(batches, lambda batch: make_pieces(run, batch, epoch), _tensors, run.device):
        step = epoch * steps + progress.step_in_epoch
        if step >= run.last_step:
            break
        progress.add(train_step(run, pieces, step), step)
        progress.epoch_s = epoch_s_before + time.perf_counter() - start
        after_step()
        if (step + 1) % CHECK_EVERY_STEPS == 0:
            check_finite(run, progress)
        asks = run.world.size == 1 or (step + 1) % AGREE_EVERY_STEPS == 0
        if asks and run.world.max(signal_received()):
            return False
        if is_save_due(run, progress):
            save(run, progress)
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)  # the last steps may still be under way
    progress.epoch_s = epoch_s_before + time.perf_counter() - start
    return True


def _tensors(pieces: list[Piece]) -> list[Tensor]:
    return [tensor for piece in pieces for tensor in piece.tensors()]


def finish_epoch(run: Run, progress: Progress, validation: ImagePart) -> dict[str, Any]:
    """An epoch's row of metrics.jsonl: means over its steps and all processes, validation accuracy, speed.

    Raises:
        InputError: A loss was not finite; the checkpoint before this epoch is still the last one.
    """
    check_finite(run, progress)
    steps, config = progress.step_in_epoch, run.config
    means = (run.world.mean(progress.sums) / steps).tolist()
    row = {"epoch": progress.epoch, "step": run.steps_done(progress), "lr": run.optimizer.param_groups[0]["lr"]}
    row |= dict(zip(progress.names, means, strict=True))
    if len(validation.labels):
        row["validation_accuracy"] = validation_accuracy(run, validation)
    images_per_s = steps * config.train.batch_size / progress.epoch_s
    return row | {"images_per_s": images_per_s, "epoch_s": progress.epoch_s}


def validation_accuracy(run: Run, validation: ImagePart) -> float:
    """The accuracy on the held-out images, a share of them on each process."""
    share_statistics(run)
    share, config = run.world.share(len(validation.labels)), run.config
    labels, correct = validation.labels[share], 0
    if len(labels):
        logits = predict(
            measured_model(run).eval(),
            validation.images_u8[share],
            device=run.device,
            amp=config.train.amp,
            batch_size=config.eval.batch_size,
        )
        correct = int(np.count_nonzero(logits.argmax(dim=1).cpu().numpy() == labels))
    return sum(run.world.gather(correct)) / len(validation.labels)


def train_all(run: Run, progress: Progress, validation: ImagePart) -> None:
    """Train from `progress` to the run's last step. Leaves a checkpoint, unless the disk is full.

    A row is written before the checkpoint that holds it: a process killed between the two trains the epoch again, and
    the row is replaced.

    Raises:
        Interrupted: SIGINT or SIGTERM came; all is saved.
        InputError: A loss or a gradient is not finite.
    """
    config, run_dir, writes = run.config, run.config.run_dir, run.world.rank == 0
    num_profiled = config.train.profile if writes else 0
    with (
        interruptible() as signal_received,
        profiled(run_dir / "profile", num_profiled, run.device) as trace_step,
        closing(RunFiles(run_dir, to_yaml(config), progress.rows)) if writes else nullcontext() as files,
        live_display(run, progress) as show_step,
    ):
        if files is not None:
            show_views(run, files)

        def after_step() -> None:
            trace_step()
            show_step()

        while run.steps_done(progress) < run.last_step:
            if train_epoch(run, progress, signal_received, after_step):
                row = finish_epoch(run, progress, validation)
                progress.rows.append(row)
                if files is not None:
                    files.add(row)
                    log_row(config, row)
                print_epoch(row, config.train.epochs)
                if progress.step_in_epoch == run.source.steps_per_epoch:
                    progress.finish_epoch()
            save(run, progress)
            signal_number = run.world.max(signal_received())
            if signal_number:
                save_at_last(run, progress)
                console.print("interrupted; the same command goes on from the last checkpoint")
                raise Interrupted(signal_number)


def show_views(run: Run, files: RunFiles) -> None:
    """Keep a picture of what the model sees: the first views that the method itself trains on; does nothing if there.

    They are made once more for it, which changes nothing: all that is random depends on epoch and sample only.
    """
    if files.has_views():
        return
    epoch = run.config.train.clean_epochs
    with closing(run.source.batches(epoch)) as batches:
        piece = make_pieces(run, next(batches), epoch)[0]
    method = run.main_stage.method
    titles = view_titles(method, method.layout(run.config.augment), run.config.method)
    files.add_views(view_grid(prepared(run, piece)[0], titles))


def train(config: Config) -> dict[str, Any]:
    """A whole run: train (or go on), evaluate, write results.json, which is returned.

    Raises:
        InputError: The configuration, the data or the run folder cannot be used; memory or the disk is too small; a
            device is lost.
        Interrupted: SIGINT or SIGTERM came while training; all is saved.
    """
    config = settle_hardware(config)
    model_name = config.model.name.replace(":", "-")  # timm:NAME, in a folder's name
    run_dir = (
        config.run_dir or Path("runs") / f"{config.data.name}-{config.method}-{model_name}-seed{config.train.seed}"
    )
    config = dataclasses.replace(config, run_dir=run_dir)
    choose_engine(config.augment.backend, torch.device(config.device))
    check_wandb(config)
    with (
        explained(config),
        join_world(torch.device(config.device)) as (world, device),
        run_lock(run_dir, world),
    ):
        return train_in(world, device, config)


def train_in(world: World, device: torch.device, config: Config) -> dict[str, Any]:
    """`train` of a settled config, as one of torchrun's processes."""
    data, run_dir = config.data, config.run_dir
    set_backends(device, config.train.deterministic)
    image_set = load_data(data) if world.rank == 0 else None
    world.gather(None)  # one process downloads, the others wait for it
    image_set = image_set or load_data(data)
    part, validation = split_validation(image_set, data.num_validation_images, config.train.seed)
    run = build_run(config, image_set, part, world, device)
    progress = restore(run)
    results = finished_results(run, progress)
    if results is not None:
        console.print(f"{run_dir} is finished; name another --run_dir to train anew.", soft_wrap=True)
        return results
    print_start(run, progress, len(part.labels))
    train_all(run, progress, validation)
    measured = evaluate(
        measured_model(run),
        image_set.test_images_u8,
        image_set.test_labels,
        use_cache(config, world),
        device=device,
        amp=config.train.amp,
        logits_dir=run_dir / "logits" if config.eval.save_logits else None,
        world=world,
        class_names=image_set.class_names,
    )
    save_at_last(run, progress)
    best = progress.best_validation()
    results = measured | {
        **({"best_validation": best} if best else {}),
        "class_names": list(image_set.class_names),
        "image_size": list(run.image_size),
        "steps": run.last_step,
        "train_s": progress.train_s + progress.epoch_s,
        "images_per_s": run.last_step * config.train.batch_size / (progress.train_s + progress.epoch_s),
        "num_processes": world.size,
        "environment": environment(device),
        "config": plain(config),
    }
    if world.rank == 0:
        write_json(run_dir / "results.json", results)
        log_results(run_dir, results, progress.epoch + (progress.step_in_epoch > 0))
        finish_with(config, results)
    return results


def finished_results(run: Run, progress: Progress) -> dict[str, Any] | None:
    """The results of a run that has nothing left to train or to measure, else None."""
    path = run.config.run_dir / "results.json"
    if run.steps_done(progress) < run.last_step or not path.exists():
        return None
    try:
        results = json.loads(path.read_text())
        same = results["steps"] == run.last_step and results["config"]["eval"] == plain(run.config.eval)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None  # damaged: measured again
    return results if same else None


def print_start(run: Run, progress: Progress, num_images: int) -> None:
    """What is about to run, in one line."""
    config = run.config
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    num_views = run.main_stage.method.layout(config.augment).num_views
    engine = choose_engine(config.augment.backend, run.device)
    processes = f" by {run.world.size} processes" if run.world.size > 1 else ""
    where = f", going on at epoch {progress.epoch + 1}" if progress.epoch or progress.step_in_epoch else ""
    decoded = f" (decoded by {run.source.description})" if isinstance(run.source, FolderSource) else ""
    console.print(
        f"{config.method} on {config.data.name}: {num_images} images{decoded} in {num_views} views, "
        f"{config.model.name} ({parameters / 1e6:.2f} M parameters), {config.train.epochs} epochs of "
        f"{run.source.steps_per_epoch} steps, {config.train.amp} on {config.device}{processes}, views by {engine}, run "
        f"folder {config.run_dir}{where}",
        soft_wrap=True,
    )


def main(arguments: list[str]) -> int:
    config = parse_config(arguments, "python -m fastmagn.train", "Train a classifier, then measure its robustness.")
    results = train(config)
    print_results(results, title=f"{results['config']['method']} on {results['config']['data']['name']}")
    run_dir = results["config"]["run_dir"]
    console.print(f"run folder: {run_dir}", soft_wrap=True)
    report = shlex.join(["python", "-m", "fastmagn.report", run_dir, "--out", "report"])
    console.print(f"tables, figures and a page of it: {report}", soft_wrap=True, markup=False)
    return 0


if __name__ == "__main__":
    run_command(main)

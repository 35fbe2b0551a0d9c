"""python -m fastmagn.train: train, then evaluate, then RUN/results.json. Also under torchrun, with the same arguments.

A batch's way: data.DeviceSource -> augment.sample_view_params -> augment.make_views (`make_pieces`) -> model and loss
(`run.ForwardLoss`) -> optimiser (`train_step`). Ctrl-C finishes the step, saves a checkpoint and leaves; the same
command goes on from there.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastmagn.augment.params import sample_view_params
from fastmagn.augment.views import choose_engine, make_views
from fastmagn.checkpoint import Progress
from fastmagn.cli import EXIT_INTERRUPTED, parse_config, plain, run_command, to_yaml
from fastmagn.config import Config
from fastmagn.context import StepContext
from fastmagn.data import Batch, ImagePart, load_images, split_validation
from fastmagn.distributed import World, join_world
from fastmagn.ema import update_average
from fastmagn.evaluate import evaluate, predict, use_cache
from fastmagn.failures import explained
from fastmagn.files import write_json, write_text
from fastmagn.hardware import set_backends, settle_hardware
from fastmagn.live import live_display
from fastmagn.methods import LossParts
from fastmagn.optim import learning_rate, set_learning_rate
from fastmagn.prefetch import made_ahead
from fastmagn.profiling import profiled
from fastmagn.run import Run, build_run, check_finite, measured_model, restore, save, share_statistics
from fastmagn.runlog import (
    append_row,
    console,
    environment,
    log_results,
    log_scalars,
    open_metrics,
    print_epoch,
    print_results,
    tensorboard_writer,
)
from fastmagn.signals import interruptible
from fastmagn.view_grid import save_views, view_titles
from fastmagn.wandb_log import check_wandb, finish_with, log_row

AGREE_EVERY_STEPS = 10  # several processes ask each other whether to stop
CHECK_EVERY_STEPS = 200  # whether all is finite, which waits for the device


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


def train_epoch(run: Run, progress: Progress, should_stop: Callable[[], bool], after_step: Callable[[], None]) -> bool:
    """Train from `progress` to the end of its epoch; False if stopped before. `progress` follows each step.

    Raises:
        InputError: A loss is not finite.
    """
    run.model.train()
    epoch, steps = progress.epoch, run.source.steps_per_epoch
    every = run.config.train.checkpoint_every_steps
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
        if asks and run.world.any(should_stop()):
            return False
        if every and (step + 1) % every == 0:
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
    step = progress.epoch * run.source.steps_per_epoch + steps
    row = {"epoch": progress.epoch, "step": step, "lr": run.optimizer.param_groups[0]["lr"]}
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


def train_all(run: Run, progress: Progress, validation: ImagePart) -> bool:
    """Train from `progress` to the run's last step; False if interrupted. Leaves a checkpoint either way."""
    config, run_dir, writes = run.config, run.config.run_dir, run.world.rank == 0
    metrics = open_metrics(run_dir, progress.epoch) if writes else None
    tensorboard = tensorboard_writer(run_dir, progress.epoch) if writes else None
    num_profiled = config.train.profile if writes else 0
    if writes:
        show_views(run, run_dir / "views.png", tensorboard)
    with (
        interruptible() as should_stop,
        profiled(run_dir / "profile", num_profiled, run.device) as trace_step,
        live_display(run, progress) as show_step,
    ):

        def after_step() -> None:
            trace_step()
            show_step()

        while progress.epoch * run.source.steps_per_epoch + progress.step_in_epoch < run.last_step:
            completed = train_epoch(run, progress, should_stop, after_step)
            if completed:
                row = finish_epoch(run, progress, validation)
                if writes:
                    append_row(metrics, row)
                    log_scalars(tensorboard, row)
                    log_row(config, row)
                print_epoch(row, config.train.epochs)
                if progress.step_in_epoch == run.source.steps_per_epoch:
                    progress.finish_epoch()
            save(run, progress)
            if run.world.any(not completed or should_stop()):
                return False
    return True


def show_views(run: Run, path: Path, tensorboard: Any | None) -> None:
    """Keep a picture of what the model sees: the first views that the method itself trains on; does nothing if there.

    They are made once more for it, which changes nothing: all that is random depends on epoch and sample only.
    """
    if path.exists():
        return
    epoch = run.config.train.clean_epochs
    piece = make_pieces(run, next(run.source.batches(epoch)), epoch)[0]
    method = run.main_stage.method
    titles = view_titles(method, method.layout(run.config.augment), run.config.method)
    save_views(path, prepared(run, piece)[0], titles, tensorboard)


def train(config: Config) -> dict[str, Any] | None:
    """A whole run: train (or go on), evaluate, write results.json; None if interrupted.

    Raises:
        InputError: The configuration, the data or the run folder cannot be used; memory is too small; a device is lost.
    """
    config = settle_hardware(config)
    model_name = config.model.name.replace(":", "-")  # timm:NAME, in a folder's name
    run_dir = (
        config.run_dir or Path("runs") / f"{config.data.name}-{config.method}-{model_name}-seed{config.train.seed}"
    )
    config = dataclasses.replace(config, run_dir=run_dir)
    choose_engine(config.augment.backend, torch.device(config.device))
    check_wandb(config)
    with explained(config), join_world(torch.device(config.device)) as (world, device):
        return train_in(world, device, config)


def train_in(world: World, device: torch.device, config: Config) -> dict[str, Any] | None:
    """`train` of a settled config, as one of torchrun's processes."""
    data, run_dir = config.data, config.run_dir
    set_backends(device, config.train.deterministic)
    image_set = load_images(data.name, data.dir, data.download) if world.rank == 0 else None
    world.gather(None)  # one process downloads, the others wait for it
    image_set = image_set or load_images(data.name, data.dir, data.download)
    part, validation = split_validation(image_set, data.num_validation_images, config.train.seed)
    run = build_run(config, image_set, part, world, device)
    progress = restore(run)
    results = finished_results(run, progress)
    if results is not None:
        console.print(f"{run_dir} is finished; name another --run_dir to train anew.", soft_wrap=True)
        return results
    print_start(run, progress, len(part.labels))
    if world.rank == 0:
        write_text(run_dir / "config.yaml", to_yaml(config))
    if not train_all(run, progress, validation):
        return None
    measured = evaluate(
        measured_model(run),
        image_set.test_images_u8,
        image_set.test_labels,
        use_cache(config, world),
        device=device,
        amp=config.train.amp,
        logits_dir=run_dir / "logits" if config.eval.save_logits else None,
        world=world,
    )
    results = measured | {
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
    done = progress.epoch * run.source.steps_per_epoch + progress.step_in_epoch
    if done < run.last_step or not path.exists():
        return None
    results = json.loads(path.read_text())
    same = results["steps"] == run.last_step and results["config"]["eval"] == plain(run.config.eval)
    return results if same else None


def print_start(run: Run, progress: Progress, num_images: int) -> None:
    """What is about to run, in one line."""
    config = run.config
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    num_views = run.main_stage.method.layout(config.augment).num_views
    engine = choose_engine(config.augment.backend, run.device)
    processes = f" by {run.world.size} processes" if run.world.size > 1 else ""
    where = f", going on at epoch {progress.epoch + 1}" if progress.epoch or progress.step_in_epoch else ""
    console.print(
        f"{config.method} on {config.data.name}: {num_images} images in {num_views} views, "
        f"{config.model.name} ({parameters / 1e6:.2f} M parameters), {config.train.epochs} epochs of "
        f"{run.source.steps_per_epoch} steps, {config.train.amp} on {config.device}{processes}, views by {engine}, run "
        f"folder {config.run_dir}{where}",
        soft_wrap=True,
    )


def main(arguments: list[str]) -> int:
    config = parse_config(arguments, "python -m fastmagn.train", "Train a classifier, then measure its robustness.")
    results = train(config)
    if results is None:
        console.print("interrupted; the same command goes on from the last checkpoint")
        return EXIT_INTERRUPTED
    print_results(results, title=f"{results['config']['method']} on {results['config']['data']['name']}")
    console.print(f"run folder: {results['config']['run_dir']}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)

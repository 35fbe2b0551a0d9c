"""python -m fastmagn.train: train, then evaluate, then RUN/results.json.

A batch's way: data.DeviceSource -> augment.sample_view_params -> augment.make_views -> model -> method.loss, all in
`train_step`. Ctrl-C finishes the step, saves a checkpoint and leaves; the same command goes on from there.
"""

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.checkpoint import (
    Progress,
    check_same_run,
    last_checkpoint,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from fastmagn.cli import EXIT_INTERRUPTED, flatten, parse_config, plain, run_command, to_yaml
from fastmagn.config import Config
from fastmagn.context import StepContext
from fastmagn.data import Batch, DeviceSource, ImagePart, ImageSet, load_images, split_validation
from fastmagn.distributed import World, world_size
from fastmagn.errors import InputError
from fastmagn.evaluate import evaluate, predict, use_cache
from fastmagn.files import write_json, write_text
from fastmagn.hardware import precision, settle_hardware
from fastmagn.methods import LossParts, Method, get_method, model_for_test, split_logits
from fastmagn.models import Normalised, build_model
from fastmagn.optim import learning_rate, make_optimizer, set_learning_rate
from fastmagn.runlog import (
    append_row,
    console,
    environment,
    log_scalars,
    open_metrics,
    print_epoch,
    print_results,
    progress_bar,
    tensorboard_writer,
)

ForwardLoss = Callable[[Tensor, Tensor], tuple[Tensor, LossParts]]
STATUS_EVERY_S = 1.0  # reading the running loss waits for the device: seldom


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """All that the steps of a run share."""

    config: Config
    device: torch.device
    method: Method
    source: DeviceSource
    view_spec: ViewSpec
    image_size: tuple[int, int]
    num_classes: int
    model: Normalised
    optimizer: torch.optim.Optimizer
    forward_loss: ForwardLoss

    @property
    def last_step(self) -> int:
        """Steps of the whole run."""
        steps = self.config.train.epochs * self.source.steps_per_epoch
        return min(steps, self.config.train.max_steps or steps)


def train_step(run: Run, batch: Batch, epoch: int, step: int) -> LossParts:
    """One optimiser step: views, one fused forward, loss, backward, update. No host synchronisation.

    Args:
        run: The run.
        batch: uint8 images [B, 3, H, W] and labels [B] on the device, sample indices [B] on the host.
        epoch: Epoch, from 0, for the random stream.
        step: Step of the whole run, from 0, for the learning rate.

    Returns:
        Scalars on the device: the loss, its parts, the accuracy on the first views (clean where the method has them).
    """
    config = run.config
    lr = learning_rate(step, config.optim, steps_per_epoch=run.source.steps_per_epoch, epochs=config.train.epochs)
    set_learning_rate(run.optimizer, lr)
    params = sample_view_params(config.train.seed, epoch, batch.indices, run.view_spec, config.augment, run.image_size)
    views = make_views(batch.images, params, config.augment.backend)
    images, targets = views.images, batch.labels
    if run.method.prepare is not None:
        context = StepContext(
            config=config, model=run.model, num_classes=run.num_classes, epoch=epoch, indices=batch.indices
        )
        images, targets = run.method.prepare(images, targets, context)
    loss, parts = run.forward_loss(images, targets)
    loss.backward()
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return parts


def make_forward_loss(model: Normalised, method: Method, config: Config) -> ForwardLoss:
    """The function (views float [V*B, 3, H, W], targets) -> (loss, detached parts): one forward over all views."""
    device, layout = torch.device(config.device), method.layout(config.augment)

    def forward_loss(images: Tensor, targets: Tensor) -> tuple[Tensor, LossParts]:
        with precision(device, config.train.amp):
            fused_logits = model(images)
        logits = split_logits(fused_logits, layout)
        loss, parts = method.loss(logits, targets, config.loss)
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        accuracy = (fused_logits[: len(labels)].argmax(dim=1) == labels).float().mean()
        parts = {"loss": loss, **parts, "train_accuracy": accuracy}
        return loss, {name: part.detach() for name, part in parts.items()}

    return torch.compile(forward_loss) if config.train.compile else forward_loss


def build_run(config: Config, image_set: ImageSet, part: ImagePart) -> Run:
    """Model, optimiser and source of a settled config."""
    device = torch.device(config.device)
    method = get_method(config.method)
    view_spec = method.view_spec(config.augment)
    model = build_model(
        config.model.name,
        num_classes=image_set.num_classes,
        mean=image_set.mean,
        std=image_set.std,
        seed=config.train.seed,
        num_views=method.layout(config.augment).num_views,
        bn_views=config.model.bn_views,
    ).to(device)
    if config.train.channels_last:
        model.to(memory_format=torch.channels_last)
    return Run(
        config=config,
        device=device,
        method=method,
        source=DeviceSource(part, batch_size=config.train.batch_size, seed=config.train.seed, device=device),
        view_spec=view_spec,
        image_size=part.images_u8.shape[1:3],
        num_classes=image_set.num_classes,
        model=model,
        optimizer=make_optimizer(model.parameters(), config.optim),
        forward_loss=make_forward_loss(model, method, config),
    )


def train_epoch(run: Run, progress: Progress, should_stop: Callable[[], bool], save: Callable[[], None]) -> bool:
    """Train from `progress` to the end of its epoch; False if stopped before. `progress` follows each step."""
    run.model.train()
    epoch, steps = progress.epoch, run.source.steps_per_epoch
    every = run.config.train.checkpoint_every_steps
    epoch_s_before, start, shown = progress.epoch_s, time.perf_counter(), 0.0
    with progress_bar() as bar:
        task = bar.add_task(f"epoch {epoch + 1}", total=steps, completed=progress.step_in_epoch, status="")
        for batch in run.source.batches(epoch, progress.step_in_epoch):
            step = epoch * steps + progress.step_in_epoch
            if step >= run.last_step:
                break
            parts = train_step(run, batch, epoch, step)
            for name, part in parts.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + part.double()
            progress.step_in_epoch += 1
            progress.epoch_s = epoch_s_before + time.perf_counter() - start
            bar.update(task, advance=1)
            if not bar.disable and progress.epoch_s - shown > STATUS_EVERY_S:
                shown = progress.epoch_s
                bar.update(task, status=f"loss {float(progress.sums['loss']) / progress.step_in_epoch:.3f}")
            if should_stop():
                return False
            if every and (step + 1) % every == 0:
                save()
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)  # the last steps may still be under way
    progress.epoch_s = epoch_s_before + time.perf_counter() - start
    return True


def finish_epoch(run: Run, progress: Progress, validation: ImagePart) -> dict[str, Any]:
    """An epoch's row of metrics.jsonl: means over its steps, validation accuracy, speed.

    Raises:
        InputError: A mean is not finite; the checkpoint before this epoch is still the last one.
    """
    steps, config = progress.step_in_epoch, run.config
    means = {name: float(total) / steps for name, total in progress.sums.items()}
    for name, mean in means.items():
        if not math.isfinite(mean):
            raise InputError(
                f"{name}: got {mean} in epoch {progress.epoch}; expected a finite number. Lower optim.lr (it is "
                f"{config.optim.lr}); the last good checkpoint is {last_checkpoint(config.run_dir)}."
            )
    step = progress.epoch * run.source.steps_per_epoch + steps
    row = {"epoch": progress.epoch, "step": step, "lr": run.optimizer.param_groups[0]["lr"], **means}
    if len(validation.labels):
        run.model.eval()
        logits = predict(
            model_for_test(run.model, config, run.image_size),
            validation.images_u8,
            device=run.device,
            amp=config.train.amp,
            batch_size=config.eval.batch_size,
        )
        row["validation_accuracy"] = float((logits.argmax(dim=1).cpu().numpy() == validation.labels).mean())
    images_per_s = steps * config.train.batch_size / progress.epoch_s
    return row | {"images_per_s": images_per_s, "epoch_s": progress.epoch_s}


def restore(run: Run) -> Progress:
    """Where the run stands: its last checkpoint, loaded into model and optimiser, or the beginning.

    Raises:
        InputError: There is a checkpoint and `resume` is never, or it was made by another configuration.
    """
    config, path = run.config, last_checkpoint(run.config.run_dir)
    if not path.exists():
        return Progress(epoch=0, step_in_epoch=0, sums={})
    if config.resume == "never":
        raise InputError(f"resume: got 'never', but {path} is there; name another --run_dir to train anew.")
    state = read_checkpoint(path, run.device)
    check_same_run(state["config"], flatten(config), path)
    load_model(state, run.model, path)
    run.optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


def train_all(run: Run, progress: Progress, validation: ImagePart) -> bool:
    """Train from `progress` to the run's last step; False if interrupted. Leaves a checkpoint either way."""
    config, run_dir = run.config, run.config.run_dir
    metrics = open_metrics(run_dir, progress.epoch)
    tensorboard = tensorboard_writer(run_dir, progress.epoch)

    def save() -> None:
        save_checkpoint(
            last_checkpoint(run_dir),
            model=run.model,
            optimizer=run.optimizer,
            progress=progress,
            config=flatten(config),
        )

    with interruptible() as should_stop:
        while progress.epoch * run.source.steps_per_epoch + progress.step_in_epoch < run.last_step:
            completed = train_epoch(run, progress, should_stop, save)
            if completed:
                row = finish_epoch(run, progress, validation)
                append_row(metrics, row)
                log_scalars(tensorboard, row)
                print_epoch(row, config.train.epochs)
                if progress.step_in_epoch == run.source.steps_per_epoch:
                    progress.finish_epoch()
            save()
            if not completed or should_stop():
                return False
    return True


def train(config: Config) -> dict[str, Any] | None:
    """A whole run: train (or go on), evaluate, write results.json; None if interrupted.

    Raises:
        InputError: The configuration, the data or the run folder cannot be used.
    """
    if world_size() > 1:
        raise InputError(f"torchrun: got {world_size()} processes; expected 1, as training takes no more yet.")
    config = settle_hardware(config)
    run_dir = (
        config.run_dir
        or Path("runs") / f"{config.data.name}-{config.method}-{config.model.name}-seed{config.train.seed}"
    )
    config = dataclasses.replace(config, run_dir=run_dir)
    image_set = load_images(config.data.name, config.data.dir, config.data.download)
    part, validation = split_validation(image_set, config.data.num_validation_images, config.train.seed)
    run = build_run(config, image_set, part)
    progress = restore(run)
    results = finished_results(run, progress)
    if results is not None:
        console.print(f"{run_dir} is finished; name another --run_dir to train anew.", soft_wrap=True)
        return results
    print_start(run, progress, len(part.labels))
    write_text(run_dir / "config.yaml", to_yaml(config))
    if not train_all(run, progress, validation):
        return None
    measured = evaluate(
        model_for_test(run.model, config, run.image_size),
        image_set.test_images_u8,
        image_set.test_labels,
        use_cache(config, World()),
        device=run.device,
        amp=config.train.amp,
        logits_dir=run_dir / "logits" if config.eval.save_logits else None,
    )
    results = measured | {
        "steps": run.last_step,
        "train_s": progress.train_s + progress.epoch_s,
        "images_per_s": run.last_step * config.train.batch_size / (progress.train_s + progress.epoch_s),
        "environment": environment(run.device),
        "config": plain(config),
    }
    write_json(run_dir / "results.json", results)
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
    num_views = run.method.layout(config.augment).num_views
    where = f", going on at epoch {progress.epoch + 1}" if progress.epoch or progress.step_in_epoch else ""
    console.print(
        f"{config.method} on {config.data.name}: {num_images} images in {num_views} views, "
        f"{config.model.name} ({parameters / 1e6:.2f} M parameters), {config.train.epochs} epochs of "
        f"{run.source.steps_per_epoch} steps, {config.train.amp} on {config.device}, run folder "
        f"{config.run_dir}{where}",
        soft_wrap=True,
    )


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGINT or SIGTERM came; a second one interrupts at once.

    Python delivers signals to the main thread only: elsewhere nothing is caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        console.print("finishing the step, then saving; once more to leave at once")

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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

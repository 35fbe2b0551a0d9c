"""What the terminal shows during training. Without a terminal, only one line per epoch is printed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from fastmagn.machine.console import console
from fastmagn.runs.progress import Progress
from fastmagn.training.step import Run

STATUS_EVERY_S = 1.0  # reading the running loss waits for the device, so it is rare
SPEED_OVER_S = 300.0  # the speed behind the time left; a longer window is steadier


@contextmanager
def progress_display(run: Run, progress: Progress) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each step; it shows `progress`.

    There is one display for the whole run: the epoch, the steps done and their total, and the time left to train. The
    line below it has images/s in this epoch and the means of the loss, its parts and the training accuracy so far.
    """
    if console.quiet or not console.is_terminal:
        yield lambda: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    bar = Bar(*columns, console=console, speed_estimate_period=SPEED_OVER_S)
    task = bar.add_task("", total=run.last_step, completed=run.steps_done(progress))
    status, shown = Text(no_wrap=True, overflow="ellipsis"), 0.0

    def show() -> None:
        nonlocal shown
        epochs = run.config.train.epochs
        bar.update(task, completed=run.steps_done(progress), description=f"epoch {progress.epoch + 1}/{epochs}, steps")
        if time.perf_counter() - shown > STATUS_EVERY_S:
            status.plain = describe(progress, run.config.train.batch_size)
            shown = time.perf_counter()

    with Live(Group(bar, status), console=console, transient=True):
        yield show


def describe(progress: Progress, batch_size: int) -> str:
    """The epoch so far: images/s and the means over its steps. Waits for the device."""
    means = dict(zip(progress.names, (progress.sums / progress.step_in_epoch).tolist(), strict=True))
    accuracy = means.pop("train_accuracy")
    parts = "  ".join(f"{name} {value:.4f}" for name, value in means.items())
    return f"{progress.step_in_epoch * batch_size / progress.epoch_s:.0f} images/s  {parts}  train {accuracy:.1%}"


def print_epoch(row: dict[str, Any], epochs: int) -> None:
    """One line for one epoch."""
    known = {"epoch", "step", "lr", "loss", "train_accuracy", "validation_accuracy"}
    known |= {"images_per_s", "epoch_s", "wall_images_per_s", "wall_s"}
    parts = "".join(f"  {name} {value:.4f}" for name, value in row.items() if name not in known)
    validation = f"  validation {row['validation_accuracy']:.2%}" if "validation_accuracy" in row else ""
    console.print(
        f"epoch {row['epoch'] + 1:>3}/{epochs}  loss {row['loss']:.4f}{parts}  train {row['train_accuracy']:.2%}"
        f"{validation}  {row['images_per_s']:.0f} images/s  {row['epoch_s']:.1f} s",
        soft_wrap=True,
    )

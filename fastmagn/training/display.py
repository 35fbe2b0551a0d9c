"""What the terminal shows during training: a table with a row per epoch; at a terminal, also a bar and a live row."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from fastmagn.machine.compiling import COMPILING, told_of_compiling
from fastmagn.machine.console import console
from fastmagn.methods.method import LOGGED_BESIDE_PARTS
from fastmagn.runs.progress import Progress
from fastmagn.training.step import Run

STATUS_EVERY_S = 1.0  # reading the running loss waits for the device, so it is rare
SPEED_OVER_S = 300.0  # the speed behind the time left; a longer window is steadier
_CELL, _GAP = 7, 2  # characters of a number, and between two columns
_SHORT = {"cross_entropy": "CE", "jensen_shannon": "JSD", "consistency": "cons.", "adversarial_divergence": "adv KL"}


class EpochTable:
    """Prints a row for each epoch; the header comes first, and again when the columns change.

    Args:
        num_epochs: The number of epochs that the run begins.
    """

    def __init__(self, num_epochs: int) -> None:
        self._num_epochs, self._header = num_epochs, ""

    def print_row(self, row: dict[str, Any]) -> None:
        """Print the row of metrics.jsonl."""
        text = self.text(row)
        self._header, _ = epoch_lines(row, self._num_epochs, console.width)
        console.print(text, soft_wrap=True)

    def text(self, row: dict[str, Any]) -> str:
        """The row as it would be printed now, below the header if that is not there yet."""
        header, line = epoch_lines(row, self._num_epochs, console.width)
        return line if header == self._header else f"{header}\n{line}"


def num_epochs(run: Run) -> int:
    """The number of epochs that the run begins; `train.max_steps` may end the last one early."""
    return -(-run.last_step // run.source.steps_per_epoch)


def epoch_lines(row: dict[str, Any], num_epochs: int, width: int) -> tuple[str, str]:
    """The header and the row of an epoch, at most `width` characters wide.

    Parts of the loss that do not fit are left out, the last ones first; metrics.jsonl has them all.
    """
    last = str(num_epochs)
    epoch = f"{row['epoch'] + 1:>{len(last)}}/{last}"
    first = [("epoch".rjust(len(epoch)), epoch.rjust(len("epoch"))), _cell("loss", row["loss"])]
    ends = [_cell("train %", row["train_accuracy"], 100, 2)]
    if "validation_accuracy" in row:
        ends.append(_cell("valid %", row["validation_accuracy"], 100, 2))
    ends += [_cell("images/s", row["images_per_s"], 1, 0), _cell("seconds", row["epoch_s"], 1, 1)]
    parts = [_cell(_short(name), value) for name, value in row.items() if name not in LOGGED_BESIDE_PARTS]
    while parts and sum(len(header) + _GAP for header, _ in first + parts + ends) - _GAP > width:
        parts.pop()
    header, cells = zip(*first, *parts, *ends, strict=True)
    gap = " " * _GAP
    return gap.join(header), gap.join(cells)


def _short(name: str) -> str:
    """The name of a part of the loss in as many characters as a number has."""
    return _SHORT.get(name) or name.replace("_", " ")[:_CELL].rstrip()


def _cell(header: str, value: float, times: float = 1.0, decimals: int = 4) -> tuple[str, str]:
    """A column's header and its number, in the width of the column; a large number has fewer decimals."""
    width, scaled = max(_CELL, len(header)), times * value
    texts = [f"{scaled:.{number}f}" for number in range(decimals, -1, -1)]
    number = next((text for text in texts if len(text) <= width), f"{scaled:.1e}")
    return header.rjust(width), number.rjust(width)


@contextmanager
def progress_display(run: Run, progress: Progress, table: EpochTable) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each step; it shows `progress`.

    At a terminal there is one display for the whole run: the current epoch's row so far, in the columns of `table`; the
    steps done and their total, and the time left to train. It appears with the first step. Where kernels are compiled
    before that, a line says so; without a terminal there is only that line.
    """

    def tell() -> None:
        console.print(COMPILING)

    compiles = run.config.train.compile and run.device.type == "cuda"  # on a CPU the network is compiled by now
    if compiles:
        tell()
    with nullcontext() if compiles else told_of_compiling(tell), _live(run, progress, table) as show:
        yield show


@contextmanager
def _live(run: Run, progress: Progress, table: EpochTable) -> Iterator[Callable[[], None]]:
    if console.quiet or not console.is_terminal:
        yield lambda: None
        return
    columns = (
        *(TextColumn("{task.description}", markup=False), BarColumn(bar_width=None)),
        *(MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left")),
    )
    bar = Bar(*columns, console=console, speed_estimate_period=SPEED_OVER_S, expand=True)
    task = bar.add_task("steps", total=run.last_step, completed=run.steps_done(progress))
    row, shown = Text(no_wrap=True, overflow="ellipsis"), 0.0

    def show() -> None:
        nonlocal shown
        bar.update(task, completed=run.steps_done(progress))
        if time.perf_counter() - shown > STATUS_EVERY_S:
            row.plain = table.text(row_so_far(progress, run.config.train.batch_size))
            live.update(Group(row, bar))
            shown = time.perf_counter()

    with Live(console=console, transient=True) as live:
        yield show


def row_so_far(progress: Progress, batch_size: int) -> dict[str, Any]:
    """The row of the current epoch: the means over its steps so far. Waits for the device."""
    assert progress.sums is not None
    means = dict(zip(progress.names, (progress.sums / progress.step_in_epoch).tolist(), strict=True))
    speed = progress.step_in_epoch * batch_size / progress.epoch_s
    return {"epoch": progress.epoch} | means | {"images_per_s": speed, "epoch_s": progress.epoch_s}

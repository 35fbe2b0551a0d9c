"""The position of a run: epoch, step, running sums, rows."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

NEVER = 2**62  # the step of an event that has not happened
_NOT_KEPT = ("first_bad", "unsaved", "unsettled", "ticked")


@dataclass
class Progress:
    """The position of a run.

    Args:
        epoch: The current epoch, from 0; the number of epochs once training is done.
        step_in_epoch: Steps done in the current epoch.
        names: The logged quantities.
        sums: The sum of each over the steps of the current epoch, float64 [len(names)] on the device; None before its
            first step.
        epoch_s: Seconds of training in the current epoch.
        train_s: Seconds of training in the epochs before.
        epoch_wall_s: Seconds by the clock since the last row: training, and all that it waited for.
        train_wall_s: The same up to the last row.
        rows: The rows of metrics.jsonl so far. The checkpoint holds them too, so that the file always describes the
            weights beside it, even if the process was killed between the two writes.
        measured_alike_from: The first epoch whose validation was measured with the present `eval` settings.
        first_bad: The first step of the epoch at which each quantity was not finite, int64 [len(names)] on the device.
        unsaved: Whether the last attempt to save a checkpoint failed.
        unsettled: Whether a checkpoint is being written, so that `unsaved` is not known yet.
        ticked: When `tick` or `skip` was last called, by a clock that only runs forward.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    names: tuple[str, ...] = ()
    sums: Tensor | None = None
    epoch_s: float = 0.0
    train_s: float = 0.0
    epoch_wall_s: float = 0.0
    train_wall_s: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    measured_alike_from: int = 0
    first_bad: Tensor | None = None
    unsaved: bool = False
    unsettled: bool = False
    ticked: float = field(default_factory=lambda: time.perf_counter())

    def state(self) -> dict[str, Any]:
        """The part that a checkpoint keeps."""
        return {name: value for name, value in vars(self).items() if name not in _NOT_KEPT}

    def tick(self) -> None:
        """Add the time since the last call, or since the start of this process's part of the run, to the wall time."""
        now = time.perf_counter()
        self.epoch_wall_s, self.ticked = self.epoch_wall_s + now - self.ticked, now

    def skip(self) -> None:
        """Leave the time since the last call of `tick` out of the wall time, as no training waited for it."""
        self.ticked = time.perf_counter()

    def add(self, parts: dict[str, Tensor], step: int) -> None:
        """Add a step with its logged quantities, scalars on the device. This does not wait for the device."""
        values = torch.stack([part.double() for part in parts.values()])
        if self.sums is None:
            self.names, self.sums = tuple(parts), torch.zeros_like(values)
        if self.first_bad is None:
            self.first_bad = torch.full_like(values, NEVER, dtype=torch.int64)
        self.sums += values
        self.first_bad = torch.where(values.isfinite(), self.first_bad, self.first_bad.clamp(max=step))
        self.step_in_epoch += 1

    def bad_part(self) -> tuple[str, int] | None:
        """The first quantity that was not finite, and its step; None while all are finite. Waits for the device."""
        if self.first_bad is None or (step := int(self.first_bad.min())) == NEVER:
            return None
        at_step = [name for name, first in zip(self.names, self.first_bad.tolist(), strict=True) if first == step]
        # The total loss is not finite either; the part says more.
        return next((name for name in at_step if name != "loss"), "loss"), step

    def finish_epoch(self) -> None:
        """Move to the start of the next epoch."""
        self.epoch, self.step_in_epoch, self.sums, self.first_bad = self.epoch + 1, 0, None, None
        self.train_s, self.epoch_s = self.train_s + self.epoch_s, 0.0
        self.train_wall_s, self.epoch_wall_s = self.train_wall_s + self.epoch_wall_s, 0.0

    def best_validation(self) -> dict[str, Any] | None:
        """The highest validation accuracy so far and its first epoch; None if no epoch has one.

        Epochs that were measured otherwise, before the run was resumed with another evaluation, do not count.
        """
        rows = [row for row in self.rows if "validation_accuracy" in row and row["epoch"] >= self.measured_alike_from]
        if not rows:
            return None
        best = max(rows, key=lambda row: row["validation_accuracy"])
        return {"epoch": best["epoch"], "accuracy": best["validation_accuracy"]}

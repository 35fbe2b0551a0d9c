"""How far a run has come."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

NEVER = 2**62  # the step of what has not happened
_NOT_KEPT = ("first_bad", "unsaved")


@dataclass
class Progress:
    """How far a run has come.

    Args:
        epoch: Epoch under way, from 0; the number of epochs when training is done.
        step_in_epoch: Steps done in that epoch.
        names: The quantities that are logged.
        sums: The sum over those steps of each, float64 [len(names)] on the device; None before the epoch's first step.
        epoch_s: Seconds spent training in that epoch.
        train_s: Seconds spent training in the epochs before.
        rows: The rows of metrics.jsonl so far. They are kept in the checkpoint, so that the file always tells of the
            weights beside it, whatever happened between writing the one and the other.
        first_bad: The epoch's first step at which each was not finite, int64 [len(names)] on the device.
        unsaved: Whether the last try to save a checkpoint failed.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    names: tuple[str, ...] = ()
    sums: Tensor | None = None
    epoch_s: float = 0.0
    train_s: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    first_bad: Tensor | None = None
    unsaved: bool = False

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {name: value for name, value in vars(self).items() if name not in _NOT_KEPT}

    def add(self, parts: dict[str, Tensor], step: int) -> None:
        """Count a step with its logged quantities, scalars on the device. Nothing waits for the device."""
        values = torch.stack([part.double() for part in parts.values()])
        if self.sums is None:
            self.names, self.sums = tuple(parts), torch.zeros_like(values)
        if self.first_bad is None:
            self.first_bad = torch.full_like(values, NEVER, dtype=torch.int64)
        self.sums += values
        self.first_bad = torch.where(values.isfinite(), self.first_bad, self.first_bad.clamp(max=step))
        self.step_in_epoch += 1

    def bad_part(self) -> tuple[str, int] | None:
        """The quantity that first was not finite, and its step; None while all are. Waits for the device."""
        if self.first_bad is None or (step := int(self.first_bad.min())) == NEVER:
            return None
        at_step = [name for name, first in zip(self.names, self.first_bad.tolist(), strict=True) if first == step]
        # The sum of all is not finite either: a part says more.
        return next((name for name in at_step if name != "loss"), "loss"), step

    def finish_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.step_in_epoch, self.sums, self.first_bad = self.epoch + 1, 0, None, None
        self.train_s, self.epoch_s = self.train_s + self.epoch_s, 0.0

    def best_validation(self) -> dict[str, Any] | None:
        """The highest validation accuracy so far and its (first) epoch; None where nothing is held out."""
        rows = [row for row in self.rows if "validation_accuracy" in row]
        if not rows:
            return None
        best = max(rows, key=lambda row: row["validation_accuracy"])
        return {"epoch": best["epoch"], "accuracy": best["validation_accuracy"]}

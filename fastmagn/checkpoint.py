"""A run's state on disk: what a resumed run needs to go on bit for bit.

The random stream has no state (every draw is a function of seed, epoch and sample index), nor has the learning rate,
so that weights, optimiser, loss scaler, position and the epoch's running sums are everything.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastmagn.cli import flatten
from fastmagn.config import Config
from fastmagn.errors import InputError
from fastmagn.files import replace_file

FORMAT_VERSION = 2
NEVER = 2**62  # the step of what has not happened


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
        first_bad: The epoch's first step at which each was not finite, int64 [len(names)] on the device.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    names: tuple[str, ...] = ()
    sums: Tensor | None = None
    epoch_s: float = 0.0
    train_s: float = 0.0
    first_bad: Tensor | None = None

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


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps its newest checkpoint."""
    return run_dir / "checkpoints" / "last.pt"


def save_checkpoint(path: Path, *, progress: Progress, config: dict[str, Any], **states: dict[str, Any]) -> None:
    """Write a checkpoint beside `path`, flush it, and rename it over `path`.

    Args:
        path: The file.
        progress: Where the run stands, all of it finite.
        config: The run's, flat.
        states: The state_dict of all that trains: `model`, `optimizer`, `scaler`, `average`.
    """
    kept = ("epoch", "step_in_epoch", "names", "sums", "epoch_s", "train_s")
    state = {
        "format_version": FORMAT_VERSION,
        "config": config,
        **states,
        "progress": {name: getattr(progress, name) for name in kept},
    }
    with replace_file(path) as file:
        torch.save(state, file)


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on `device`; no code in the file is run.

    Raises:
        InputError: The file is missing, damaged, or of another format version.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        version = state["format_version"]
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; expected a run folder with a trained model.") from None
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: cannot be read as a checkpoint ({type(error).__name__}); remove it.") from error
    if version != FORMAT_VERSION:
        raise InputError(f"{path}: got checkpoint format {version}; expected {FORMAT_VERSION}. Use its own fastmagn.")
    return state


def load_model(state: dict[str, Any], model: nn.Module, path: Path, weights: str = "last") -> None:
    """Load the weights of a read checkpoint, the last step's or their average (`ema`).

    Raises:
        InputError: They do not fit the model, or there is no average.
    """
    name = {"last": "model", "ema": "average"}[weights]
    if name == "average" and "average" not in state:
        raise InputError(f"eval.weights: got 'ema'; expected last, as {path} was trained with train.ema_decay 0.")
    try:
        model.load_state_dict(state[name])
    except (RuntimeError, KeyError) as error:
        raise InputError(f"{path}: its weights do not fit this model; check model.name and data.name.") from error


def check_same_run(saved: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """Raise InputError unless a checkpoint's flat config equals this run's wherever it decides the weights."""
    defaults = flatten(Config())
    for name, value in config.items():
        before = saved.get(name, defaults[name])  # a field that is younger than the checkpoint
        if not _may_change(name) and before != value:
            raise InputError(
                f"{name}: got {value!r}; expected {before!r}, with which {path} was made. "
                "Name another --run_dir to train anew."
            )


def _may_change(name: str) -> bool:
    """Whether a resumed run may have another value of this field: it decides nothing about the weights."""
    return name.startswith("eval.") or name in {
        *("run_dir", "resume", "device", "data.dir", "data.download"),
        *("train.max_steps", "train.checkpoint_every_steps", "train.profile", "train.wandb_project"),
        *("train.compile", "train.compile_mode", "train.deterministic", "augment.backend"),
    }

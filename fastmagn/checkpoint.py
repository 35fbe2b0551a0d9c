"""A run's state on disk: what a resumed run needs to go on bit for bit.

The random stream has no state (every draw is a function of seed, epoch and sample index), nor has the learning rate,
so that weights, optimiser, position and the epoch's running sums are everything.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastmagn.errors import InputError
from fastmagn.files import replace_file

FORMAT_VERSION = 1


@dataclass
class Progress:
    """How far a run has come.

    Args:
        epoch: Epoch under way, from 0; the number of epochs when training is done.
        step_in_epoch: Steps done in that epoch.
        sums: Sum over those steps of each logged quantity, float64 scalars on the device.
        epoch_s: Seconds spent training in that epoch.
        train_s: Seconds spent training in the epochs before.
    """

    epoch: int
    step_in_epoch: int
    sums: dict[str, Tensor]
    epoch_s: float = 0.0
    train_s: float = 0.0

    def finish_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.step_in_epoch, self.sums = self.epoch + 1, 0, {}
        self.train_s, self.epoch_s = self.train_s + self.epoch_s, 0.0


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps its newest checkpoint."""
    return run_dir / "checkpoints" / "last.pt"


def save_checkpoint(
    path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, config: dict[str, Any]
) -> None:
    """Write a checkpoint beside `path`, flush it, and rename it over `path`."""
    state = {
        "format_version": FORMAT_VERSION,
        "config": config,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
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


def load_model(state: dict[str, Any], model: nn.Module, path: Path) -> None:
    """Load the weights of a read checkpoint; an InputError where they do not fit the model."""
    try:
        model.load_state_dict(state["model"])
    except (RuntimeError, KeyError) as error:
        raise InputError(f"{path}: its weights do not fit this model; check model.name and data.name.") from error


def check_same_run(saved: dict[str, Any], config: dict[str, Any], path: Path) -> None:
    """Raise InputError unless a checkpoint's flat config equals this run's wherever it decides the weights."""
    for name, value in config.items():
        if not _may_change(name) and saved.get(name) != value:
            raise InputError(
                f"{name}: got {value!r}; expected {saved.get(name)!r}, with which {path} was made. "
                "Name another --run_dir to train anew."
            )


def _may_change(name: str) -> bool:
    """Whether a resumed run may have another value of this field: it decides nothing about the weights."""
    return name.startswith("eval.") or name in {
        *("run_dir", "resume", "device", "data.dir", "data.download"),
        *("train.max_steps", "train.checkpoint_every_steps", "train.compile", "augment.backend"),
    }

"""Functions of the user's own that a training calls after each step and each epoch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn


class StepDone(NamedTuple):
    """What `Callbacks.on_step` is given.

    Args:
        step: Steps of the whole run that are done, from 1.
        last_step: Steps of the whole run.
        epoch: The epoch, from 0.
        parts: Scalars on the device, of this process's images: the loss, its parts, and `train_accuracy`. Reading one
            (`.item()`) waits for the device.
        model: images float [B, 3, H, W] in [0, 1] -> logits [B, K]; in training mode, after the update.
        rank: The process, 0..num_processes - 1.
        num_processes: torchrun's processes; 1 without it.
    """

    step: int
    last_step: int
    epoch: int
    parts: "Mapping[str, Tensor]"
    model: "nn.Module"
    rank: int
    num_processes: int


class EpochDone(NamedTuple):
    """What `Callbacks.on_epoch` is given.

    Args:
        row: A copy of the epoch's row of metrics.jsonl: means over all processes, speeds, and the validation accuracy
            if there are validation images.
        epochs: Epochs of the whole run.
        model: As in `StepDone`.
        rank: As in `StepDone`.
        num_processes: As in `StepDone`.
    """

    row: Mapping[str, Any]
    epochs: int
    model: "nn.Module"
    rank: int
    num_processes: int


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that `fastmagn.train.train` calls. Each is called in every process, at the same steps.

    They look, and leave the run as it is: a resumed run equals an undisturbed one bit for bit only if they change
    neither the weights nor the optimiser. Modes (`model.eval()`) are put back. What they draw from PyTorch's generators
    does not matter. The run is saved after `on_epoch`: after an interruption a function is called again for the steps
    and the epoch that are trained again. If one raises an exception, the training ends with it, and the last checkpoint
    stays. Their time counts as time of training.

    Args:
        on_step: Called after each optimiser step. Without one, no step waits for the device.
        on_epoch: Called when an epoch's row has been written, before its checkpoint; also for the part of an epoch with
            which train.max_steps ends the run.
    """

    on_step: Callable[[StepDone], None] | None = None
    on_epoch: Callable[[EpochDone], None] | None = None


NO_CALLBACKS = Callbacks()

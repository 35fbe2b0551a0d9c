"""One training step on one page: views, one fused forward, loss, backward, update.

A batch comes from a source in data/. `make_pieces` draws the parameters of its views (augment/params.py) and makes them
(augment/views.py). `train_step` lets the method change them (`prepared`), then runs model and loss (`ForwardLoss`) and
the optimiser.
"""

import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastmagn.augment.params import ViewParams, ViewSpec, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig, Config
from fastmagn.data import Batch, ImageSet, Source
from fastmagn.machine.behind import Behind
from fastmagn.machine.hardware import precision
from fastmagn.machine.processes import World
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import LossParts, Method, split_logits
from fastmagn.models import Normalised
from fastmagn.models.stages import check_stages, forward_in_stages
from fastmagn.runs.progress import Progress
from fastmagn.training.ema import update_average
from fastmagn.training.loss_trial import LossTrial
from fastmagn.training.optim import learning_rate, set_learning_rate

CLEAN_ONLY = ViewSpec(num_augmix_views=0, num_noise_views=0)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What an epoch trains with: the method of the run, or clean views only in the first `clean_epochs`.

    `recipe` is what `augment.policies.recipe.read_recipe` returns.
    """

    method: Method
    augment: AugmentConfig
    recipe: dict[str, int | str] | None
    view_spec: ViewSpec
    forward_loss: nn.Module
    loss_trial: LossTrial


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that the steps of a run share. `average` is None without `train.ema_decay` and `train.swa_fraction`.

    `writing` is the checkpoint that rank 0 is writing; its result is whether that is on disk. `averaged_statistics` are
    the buffers of `average` before they were measured, by name; empty until then.
    """

    config: Config
    world: World
    device: torch.device
    source: Source
    image_set: ImageSet
    image_size: tuple[int, int]
    num_classes: int
    model: Normalised
    average: nn.Module | None
    clean_stage: Stage | None
    main_stage: Stage
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    writing: Behind[bool] = field(default_factory=Behind)
    averaged_statistics: dict[str, Tensor] = field(default_factory=dict)

    def stage(self, epoch: int) -> Stage:
        """The stage of an epoch, counted from 0."""
        if self.clean_stage is not None and epoch < self.config.train.clean_epochs:
            return self.clean_stage
        return self.main_stage

    @property
    def first_averaged(self) -> int | None:
        """The first epoch, counted from 0, whose weights enter the equal average; None without one."""
        train = self.config.train
        return math.floor(train.epochs * (1 - train.swa_fraction) + 1e-9) if train.swa_fraction else None

    @property
    def last_step(self) -> int:
        """The number of steps of the whole run."""
        steps = self.config.train.epochs * self.source.steps_per_epoch
        return min(steps, self.config.train.max_steps or steps)

    def steps_done(self, progress: Progress) -> int:
        """The number of steps done since the start of the run."""
        return progress.epoch * self.source.steps_per_epoch + progress.step_in_epoch


class ForwardLoss(nn.Module):
    """(views float [V*B, 3, H, W], targets) -> (loss, detached parts): one forward over all views, and the loss.

    Targets are labels int64 [B] or probabilities float [B, K]; a part is a scalar. One module holds both, so that
    torch.compile sees model and loss as one graph and DistributedDataParallel sees all weights. A method that changes
    feature maps has further tensors, `plan`.
    """

    def __init__(self, model: Normalised, method: Method, config: Config) -> None:
        super().__init__()
        self.model = model
        self.method, self.layout, self.config = method, method.layout(config.augment), config
        if method.between_stages is not None:
            check_stages(model, config.method, config.model.name)

    def forward(self, images: Tensor, targets: Tensor, *plan: Tensor) -> tuple[Tensor, LossParts]:
        change = self.method.between_stages
        with precision(images.device, self.config.train.amp):
            if change is None:
                fused_logits = self.model(images)
            else:
                fused_logits = forward_in_stages(self.model, images, lambda stage, maps: change(stage, maps, *plan))
        loss, parts = self.method.checked_loss(split_logits(fused_logits, self.layout), targets, self.config.loss)
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        accuracy = (fused_logits[: len(labels)].argmax(dim=1) == labels).float().mean()
        parts = {"loss": loss, **parts, "train_accuracy": accuracy}
        return loss, {name: part.detach() for name, part in parts.items()}


class Piece(NamedTuple):
    """The images of a step, or a part of them, in all views float [V*B, 3, H, W], and the batch they were made from.

    `partners` are the clean views of the batch's partners, float [P*B, 3, H, W]; None if it has none.
    """

    views: Tensor
    batch: Batch
    epoch: int
    partners: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """The tensors on the device."""
        partners = () if self.partners is None else (self.partners, self.batch.partners.images)
        return [self.views, self.batch.images, self.batch.labels, *partners]


def make_pieces(run: Run, batch: Batch, epoch: int) -> list[Piece]:
    """The views of a batch of images uint8 [B, 3, H, W], in `train.accumulation_steps` pieces; epochs count from 0."""
    stage = run.stage(epoch)

    def views(images: Tensor, indices: np.ndarray, view_spec: ViewSpec) -> Tensor:
        return make_views(images, view_params(run, indices, epoch, view_spec), stage.augment.backend)

    pieces = []
    for part in batch.pieces(run.config.train.accumulation_steps):
        partners = None
        if part.partners is not None and stage.method.num_partners:
            partners = views(part.partners.images, part.partners.indices, CLEAN_ONLY)
        pieces.append(Piece(views(part.images, part.indices, stage.view_spec), part, epoch, partners))
    return pieces


def view_params(run: Run, indices: np.ndarray, epoch: int, view_spec: ViewSpec) -> ViewParams:
    """What is random about the views of some samples, int64 [B]."""
    augment, mean = run.stage(epoch).augment, tuple(run.image_set.mean)
    return sample_view_params(run.config.train.seed, epoch, indices, view_spec, augment, run.image_size, mean)


def train_step(run: Run, pieces: list[Piece], step: int) -> LossParts:
    """One optimiser step: a fused forward, loss and backward for each piece, then the update. No host synchronisation.

    Args:
        run: The run.
        pieces: From `make_pieces`.
        step: The step of the whole run, from 0; it decides the learning rate.

    Returns:
        Scalars on the device, for the images of this process: the loss, its parts, and the accuracy on the first views,
        which are the clean ones if the method has them.
    """
    config = run.config
    lr = learning_rate(
        step,
        config.optim,
        steps_per_epoch=run.source.steps_per_epoch,
        epochs=config.train.epochs,
        first_averaged=run.first_averaged,
    )
    set_learning_rate(run.optimizer, lr)
    means: LossParts = {}
    for piece in pieces:
        forward_loss = run.stage(piece.epoch).forward_loss
        with nullcontext() if piece is pieces[-1] else without_gradient_sync(forward_loss):
            inputs = prepared(run, piece)
            begin_step_of_cuda_graphs()
            loss, parts = forward_loss(*inputs)
            run.scaler.scale(loss / len(pieces)).backward()
        # New tensors, since the next replay of a CUDA graph overwrites what this one returned.
        means = {name: means.get(name, 0.0) + part / len(pieces) for name, part in parts.items()}
    if config.optim.clip_norm:
        clip_gradients(run)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    if run.average is not None and config.train.ema_decay:
        update_average(run.average, run.model, config.train.ema_decay, step)
    return means


def clip_gradients(run: Run) -> None:
    """Scale the step's gradient down to the L2 norm `optim.clip_norm`, if it is longer. No host synchronisation.

    All processes have the same gradient, and so the same norm. Weights whose gradient is not finite become NaN, as the
    end of the epoch reports. With a GradScaler the step is skipped: `unscale_` has looked at the gradient before.
    """
    run.scaler.unscale_(run.optimizer)
    nn.utils.clip_grad_norm_(run.model.parameters(), run.config.optim.clip_norm)


def begin_step_of_cuda_graphs() -> None:
    """Tell CUDA graphs that a step begins. Before PyTorch has imported them, which takes seconds, there are none."""
    if "torch._inductor.cudagraph_trees" in sys.modules:
        torch.compiler.cudagraph_mark_step_begin()


def prepared(run: Run, piece: Piece) -> tuple[Tensor, ...]:
    """The model's views, their targets, and a plan for feature maps: here attacks and mixing change them."""
    batch, stage = piece.batch, run.stage(piece.epoch)
    views = _in_layout(piece.views, run.config)
    inputs: tuple[Tensor, ...] = views, batch.labels
    if stage.method.prepare is not None:
        views, *others = stage.method.prepare(views, batch.labels, _context(run, piece))
        inputs = _in_layout(views, run.config), *others
    stage.loss_trial.before_step(inputs[0], inputs[1], run.num_classes)
    return inputs


def _in_layout(views: Tensor, config: Config) -> Tensor:
    """The views, which come channels last, in the layout of the network's weights."""
    return views if config.train.channels_last else views.contiguous()


def _context(run: Run, piece: Piece) -> StepContext:
    batch = piece.batch
    return StepContext(
        config=run.config,
        model=run.model,
        num_classes=run.num_classes,
        epoch=piece.epoch,
        indices=batch.indices,
        partners=piece.partners,
        partner_indices=batch.partners.indices if batch.partners else None,
    )


def without_gradient_sync(forward_loss: nn.Module) -> Any:
    """A context in which backward does not share gradients with other processes; for every piece but the last."""
    return forward_loss.no_sync() if isinstance(forward_loss, DistributedDataParallel) else nullcontext()


def _tensors(pieces: list[Piece]) -> list[Tensor]:
    return [tensor for piece in pieces for tensor in piece.tensors()]

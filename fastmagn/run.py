"""A run put together from its configuration: data source, model, loss, optimiser."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastmagn.augment.params import ViewSpec
from fastmagn.checkpoint import last_checkpoint
from fastmagn.config import Config
from fastmagn.data import DeviceSource, FolderSource, ImagePart, ImageSet, make_source
from fastmagn.distributed import World
from fastmagn.ema import make_average
from fastmagn.errors import InputError
from fastmagn.hardware import precision
from fastmagn.methods import LossParts, Method, get_method, model_for_test, split_logits
from fastmagn.models import Normalised, build_model
from fastmagn.models.pretrained import load_pretrained
from fastmagn.optim import make_optimizer
from fastmagn.progress import Progress
from fastmagn.runlog import console


class ForwardLoss(nn.Module):
    """(views float [V*B, 3, H, W], targets) -> (loss, detached parts): one forward over all views, and the loss.

    Targets are labels int64 [B] or probabilities float [B, K]; a part is a scalar.
    It is one module, so that torch.compile sees model and loss as one graph, and DistributedDataParallel all weights.
    """

    def __init__(self, model: Normalised, method: Method, config: Config) -> None:
        super().__init__()
        self.model = model
        self.method, self.layout, self.config = method, method.layout(config.augment), config

    def forward(self, images: Tensor, targets: Tensor) -> tuple[Tensor, LossParts]:
        with precision(images.device, self.config.train.amp):
            fused_logits = self.model(images)
        loss, parts = self.method.loss(split_logits(fused_logits, self.layout), targets, self.config.loss)
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        accuracy = (fused_logits[: len(labels)].argmax(dim=1) == labels).float().mean()
        parts = {"loss": loss, **parts, "train_accuracy": accuracy}
        return loss, {name: part.detach() for name, part in parts.items()}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What some epochs of a run do: the run's method, or before it `train.clean_epochs` of clean views only."""

    method: Method
    view_spec: ViewSpec
    forward_loss: nn.Module


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that the steps of a run share; `average` is None where `train.ema_decay` is 0."""

    config: Config
    world: World
    device: torch.device
    source: DeviceSource | FolderSource
    data_fingerprint: str
    image_size: tuple[int, int]
    num_classes: int
    model: Normalised
    average: nn.Module | None
    clean_stage: Stage | None
    main_stage: Stage
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def stage(self, epoch: int) -> Stage:
        """What the epoch, counted from 0, does."""
        return self.clean_stage if epoch < self.config.train.clean_epochs else self.main_stage

    @property
    def last_step(self) -> int:
        """Steps of the whole run."""
        steps = self.config.train.epochs * self.source.steps_per_epoch
        return min(steps, self.config.train.max_steps or steps)

    def steps_done(self, progress: Progress) -> int:
        """Steps of the whole run that are done."""
        return progress.epoch * self.source.steps_per_epoch + progress.step_in_epoch


def build_run(
    config: Config, image_set: ImageSet, part: ImagePart, world: World | None = None, device: torch.device | None = None
) -> Run:
    """Model, optimiser and source of a settled config, on this process's device.

    Raises:
        InputError: The number of processes and `train.accumulation_steps` do not divide `train.batch_size`.
    """
    world, device = world or World(), device or torch.device(config.device)
    train = config.train
    if train.batch_size % (world.size * train.accumulation_steps):
        raise InputError(
            f"train.batch_size: got {train.batch_size}; expected a multiple of {world.size * train.accumulation_steps},"
            f" for {world.size} processes with {train.accumulation_steps} accumulation steps each."
        )
    method = get_method(config.method)
    model = build_model(
        config.model.name,
        num_classes=image_set.num_classes,
        mean=image_set.mean,
        std=image_set.std,
        seed=train.seed,
        num_views=method.layout(config.augment).num_views,
        bn_views=config.model.bn_views,
        sync_bn=config.model.sync_bn,
        image_size=part.images_u8.shape[1:3],
    )
    load_first_weights(config, model, image_set.num_classes)
    model.to(device)
    if train.channels_last:
        model.to(memory_format=torch.channels_last)
    share = world.share(train.batch_size)
    return Run(
        config=config,
        world=world,
        device=device,
        source=make_source(part, batch_size=train.batch_size, seed=train.seed, device=device, share=share),
        data_fingerprint=image_set.fingerprint,
        image_size=part.images_u8.shape[1:3],
        num_classes=image_set.num_classes,
        model=model,
        average=make_average(model) if train.ema_decay else None,
        clean_stage=_stage(get_method("standard"), model, config, world, device) if train.clean_epochs else None,
        main_stage=_stage(method, model, config, world, device),
        optimizer=make_optimizer(model.parameters(), config.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=train.amp == "fp16"),
    )


def load_first_weights(config: Config, model: Normalised, num_classes: int) -> None:
    """Start from the file `model.weights`, if it names one and there is no checkpoint to go on from.

    Raises:
        InputError: The file cannot be used.
    """
    goes_on = config.run_dir is not None and any(last_checkpoint(config.run_dir).parent.glob("*.pt"))
    if config.model.weights is not None and not goes_on:
        console.print(load_pretrained(model.network, config.model.weights, num_classes), markup=False, soft_wrap=True)


def _stage(method: Method, model: Normalised, config: Config, world: World, device: torch.device) -> Stage:
    forward_loss = _prepare(ForwardLoss(model, method, config), world, device)
    return Stage(method=method, view_spec=method.view_spec(config.augment), forward_loss=forward_loss)


def _prepare(forward_loss: ForwardLoss, world: World, device: torch.device) -> nn.Module:
    """Compiled, then shared by the processes.

    Inside DistributedDataParallel the graph stays whole; the gradients are then summed after the backward pass instead
    of during it: 45 MB for ResNet-18.
    """
    train = forward_loss.config.train
    if train.compile:
        forward_loss.compile(fullgraph=True, dynamic=False, mode=train.compile_mode)
    if world.size == 1:
        return forward_loss
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(forward_loss, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)


def measured_model(run: Run) -> nn.Module:
    """What is measured: the weights that `eval.weights` names, or the method's ensemble of them."""
    model = run.model if run.average is None or run.config.eval.weights == "last" else run.average
    return model_for_test(model, run.config, run.image_size)


def share_statistics(run: Run) -> None:
    """Give every process rank 0's batch normalisation statistics: those that are measured and saved."""
    run.world.copy_from_first(run.model.buffers())
    if run.average is not None:
        run.world.copy_from_first(run.average.buffers())

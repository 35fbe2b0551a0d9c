"""Builds a run from its configuration: data source, model, loss, optimiser."""

import dataclasses
import logging
import os
from collections.abc import Collection

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastmagn.augment.policies.recipe import read_recipe
from fastmagn.config.schema import Config
from fastmagn.data import ImagePart, ImageSet, make_source
from fastmagn.errors import InputError
from fastmagn.machine.console import console, warn
from fastmagn.machine.processes import World
from fastmagn.methods.method import Method
from fastmagn.methods.table import get_method
from fastmagn.methods.test_time import model_for_test
from fastmagn.models import Normalised, build_model
from fastmagn.models.building import WITH_OLDER_FORMS
from fastmagn.models.pretrained import load_pretrained
from fastmagn.runs.checkpoint import newest_readable
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training.ema import make_average
from fastmagn.training.loss_trial import LossTrial
from fastmagn.training.optim import make_optimizer
from fastmagn.training.step import ForwardLoss, Run, Stage


def build_run(
    config: Config, image_set: ImageSet, part: ImagePart, world: World | None = None, device: torch.device | None = None
) -> Run:
    """Build the run of a settled config on the device of this process.

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
    method = get_method(config.method).of(config)
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
        weight_names=_saved_names(config),
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
        source=make_source(
            part,
            batch_size=train.batch_size,
            seed=train.seed,
            device=device,
            share=share,
            num_partners=method.num_partners,
        ),
        image_set=image_set,
        image_size=part.images_u8.shape[1:3],
        num_classes=image_set.num_classes,
        model=model,
        average=make_average(model) if train.ema_decay or train.swa_fraction else None,
        clean_stage=_stage(get_method("standard"), model, config, world, device) if train.clean_epochs else None,
        main_stage=_stage(method, model, config, world, device),
        optimizer=make_optimizer(model.parameters(), config.optim),
        scaler=torch.amp.GradScaler(device.type, enabled=train.amp == "fp16"),
    )


def load_first_weights(config: Config, model: Normalised, num_classes: int) -> None:
    """Load the file `model.weights`, if it is set and there is no checkpoint to resume from.

    Raises:
        InputError: The file cannot be used.
    """
    resumes = config.run_dir is not None and any(last_checkpoint(config.run_dir).parent.glob("*.pt"))
    if config.model.weights is not None and not resumes:
        console.print(load_pretrained(model.network, config.model.weights, num_classes), soft_wrap=True)
        has_filters = any(parameter.ndim == 4 for parameter in model.parameters())
        is_normalised = any("BatchNorm" in type(module).__name__ for module in model.network.modules())
        if config.optim.name == "muon" and has_filters and not is_normalised:
            warn(
                "optim.name muon gives each layer's filters a fixed norm, and this network has no batch normalisation:"
                " the first step changes what the loaded weights compute. --optim.name sgd does not."
            )


def _saved_names(config: Config) -> Collection[str]:
    """The names of the weights that the run resumes from, if its network has older forms; else none."""
    if config.run_dir is None or config.model.name not in WITH_OLDER_FORMS:
        return ()
    state = newest_readable(config.run_dir)
    return state["model"].keys() if state else ()


def _stage(method: Method, model: Normalised, config: Config, world: World, device: torch.device) -> Stage:
    forward_loss = _prepare(ForwardLoss(model, method, config), world, device)
    augment = method.settled(config.augment)
    return Stage(
        method=method,
        augment=augment,
        recipe=read_recipe(augment),
        view_spec=method.view_spec(augment),
        forward_loss=forward_loss,
        loss_trial=LossTrial(method, config),
    )


def _prepare(forward_loss: ForwardLoss, world: World, device: torch.device) -> nn.Module:
    """Compile, then wrap in DistributedDataParallel.

    Inside DistributedDataParallel the compiled graph stays whole. So the gradients (45 MB for ResNet-18) are summed
    after the backward pass, not during it.
    """
    train = forward_loss.config.train
    if train.compile:
        if device.type == "cpu":
            _leave_cuda_out_of_compiling()
        forward_loss.compile(fullgraph=True, dynamic=False, mode=train.compile_mode)
    if world.size == 1:
        return forward_loss
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(forward_loss, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)


def _leave_cuda_out_of_compiling() -> None:
    """Keep PyTorch's compiler from starting processes for Triton, and from warning that there is no CUDA."""
    os.environ.setdefault("TORCH_WARM_POOL", "0")
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)


def with_compiled_stages(run: Run) -> Run:
    """A run with the same weights and a network that is compiled at its next step."""
    config = dataclasses.replace(run.config, train=dataclasses.replace(run.config.train, compile=True))

    def compiled(stage: Stage) -> Stage:
        return _stage(stage.method, run.model, config, run.world, run.device)

    clean_stage = run.clean_stage and compiled(run.clean_stage)
    return dataclasses.replace(run, config=config, clean_stage=clean_stage, main_stage=compiled(run.main_stage))


def measured_model(run: Run) -> nn.Module:
    """The model that is measured: the weights that `eval.weights` names, or the method's ensemble of them."""
    model = run.model if run.average is None or run.config.eval.weights == "last" else run.average
    return model_for_test(model, run.config, run.image_size)


def share_statistics(run: Run) -> None:
    """Give every process the batch normalisation statistics of rank 0, which are measured and saved."""
    run.world.copy_from_first(run.model.buffers())
    if run.average is not None:
        run.world.copy_from_first(run.average.buffers())

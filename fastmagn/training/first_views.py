"""The first images of a run and their views, made again without its folder, for a report to show."""

import dataclasses
from contextlib import closing
from typing import NamedTuple

import numpy as np
import torch

from fastmagn.augment.wording import augmix_views, clean_views, noisy_views
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config
from fastmagn.data import Batch, ImageSet, split_validation
from fastmagn.machine.hardware import settle_hardware
from fastmagn.methods.table import get_method
from fastmagn.training.build import build_run
from fastmagn.training.step import Run, make_pieces, prepared, view_params
from fastmagn.training.view_grid import to_u8


class FirstViews(NamedTuple):
    """Images and their views, each uint8 [N, H, W, 3]; the views by their titles, in the order of the forward pass.

    `made_by` is what `what_made_them` returns.
    """

    images_u8: np.ndarray
    views_u8: dict[str, np.ndarray]
    made_by: dict[str, list[str]]


def first_views(config: Config, image_set: ImageSet, num_images: int) -> FirstViews:
    """The first `num_images` images of the method's first epoch, in all their views.

    They are made on the CPU. Only an attack's views depend on the network: it has the weights drawn from `train.seed`.

    Raises:
        InputError: The configuration names something that does not exist here, or there are fewer images.
    """
    run, batch, epoch = _first_batch(config, image_set, num_images)
    (piece,) = make_pieces(run, batch, epoch)
    titles = run.main_stage.method.view_titles(config.augment)
    views = prepared(run, piece)[0].chunk(len(titles))
    return FirstViews(
        images_u8=batch.images.permute(0, 2, 3, 1).contiguous().numpy(),
        views_u8={title: to_u8(view) for title, view in zip(titles, views, strict=True)},
        made_by=_made_by(run, batch, epoch),
    )


def what_made_them(config: Config, image_set: ImageSet, num_images: int) -> dict[str, list[str]]:
    """The operations, factors and sigma that made each of these views, by the views' titles, in words.

    Of a method that changes the views itself (an attack, a mix) only the noise is told: what it does to the other views
    is not among these draws.

    Raises:
        InputError: As `first_views`.
    """
    return _made_by(*_first_batch(config, image_set, num_images))


def _made_by(run: Run, batch: Batch, epoch: int) -> dict[str, list[str]]:
    method, spec = run.main_stage.method, run.main_stage.view_spec
    params = view_params(run, batch.indices, epoch, spec)
    titles = method.view_titles(run.config.augment)
    noise = [noisy_views(params, view) for view in range(spec.num_noise_views)]
    if method.prepare is None:
        texts = [clean_views(params), *(augmix_views(params, view) for view in range(spec.num_augmix_views)), *noise]
        return dict(zip(titles, texts, strict=True))
    noisy = [title for title in titles if title.split()[0] == "noisy"]
    return dict(zip(noisy, noise, strict=True)) if len(noisy) == len(noise) else {}


def _first_batch(config: Config, image_set: ImageSet, num_images: int) -> tuple[Run, Batch, int]:
    run, epoch = _cpu_run(config, image_set, num_images), config.train.clean_epochs
    with closing(run.source.batches(epoch)) as batches:
        return run, next(batches), epoch


def _cpu_run(config: Config, image_set: ImageSet, batch_size: int) -> Run:
    """A run on the CPU that makes the same views as the configuration's. It is never trained and has no folder."""
    name = "resnet_small" if get_method(config.method).prepare is None else config.model.name
    config = dataclasses.replace(
        config,
        run_dir=None,
        device="cpu",
        model=dataclasses.replace(config.model, name=name, weights=None, sync_bn=False),
        train=dataclasses.replace(
            config.train, batch_size=batch_size, accumulation_steps=1, compile=False, ema_decay=0.0, swa_fraction=0.0
        ),
        augment=dataclasses.replace(config.augment, backend="auto"),
        eval=EvalConfig(),
    )
    part, _ = split_validation(image_set, config.data.num_validation_images, config.train.seed)
    return build_run(settle_hardware(config), image_set, part, device=torch.device("cpu"))

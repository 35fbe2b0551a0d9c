"""What the model saw: the views that a run made of its first training images, from its folder or made again."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from fastmagn.augment.params import sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import Config, DataConfig
from fastmagn.data import ImageSet, load_data, make_source, split_validation
from fastmagn.errors import InputError
from fastmagn.methods.context import StepContext
from fastmagn.methods.method import Layout
from fastmagn.methods.table import get_method
from fastmagn.models import build_model
from fastmagn.reporting.pictures import png_address, small, stored_png, strip
from fastmagn.reporting.runs import Run
from fastmagn.runs.paths import VIEWS

NUM_IMAGES = 8

ImagesOf = Callable[[DataConfig], ImageSet]


class Gallery(NamedTuple):
    """Pictures, each (caption, address, size in px), stored or made again; or none, and a line that says why."""

    pictures: tuple[tuple[str, str, tuple[int, int]], ...] = ()
    note: str = ""
    is_stored: bool = False


def images_loader() -> ImagesOf:
    """`load_data` that reads each set once and never downloads."""
    load_once = cache(load_data)
    return lambda config: load_once(dataclasses.replace(config, download=False, num_validation_images=0))


def read_config(run: Run) -> Config:
    """The run's configuration as a Config: fields that are not there have their defaults.

    Raises:
        InputError: It has fields, or values, that this version does not know.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Config)
    try:
        values = vars(parser.instantiate(parser.parse_object(run.config)))
        return Config(**{name: values[name] for name in Config.__dataclass_fields__})
    except InputError:
        raise
    except Exception as error:  # whatever the parser makes of a foreign configuration, the report goes on
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{run.path}: its configuration is not this version's ({reason}).") from error


def gallery(run: Run, images_of: ImagesOf) -> Gallery:
    """RUN/views.png where the run has left one, else the views of its first epoch's first images, made again."""
    stored = run.folder / VIEWS
    try:
        if stored.is_file():
            address, size = stored_png(stored)
            return Gallery(((f"As the run began ({VIEWS}).", address, size),), is_stored=True)
        return _made_again(read_config(run), images_of)
    except InputError as error:
        return Gallery(note=f"Views are not shown: {error}")


def _made_again(config: Config, images_of: ImagesOf) -> Gallery:
    """The first images of the run's first epoch, in every view that is forwarded."""
    train, method, epoch = config.train, get_method(config.method), config.train.clean_epochs
    image_set = images_of(config.data)
    part, _ = split_validation(image_set, config.data.num_validation_images, train.seed)
    whole = slice(0, NUM_IMAGES)
    source = make_source(part, batch_size=NUM_IMAGES, seed=train.seed, device=torch.device("cpu"), share=whole)
    images, labels, indices = next(source.batches(epoch))
    size, spec = (images.shape[2], images.shape[3]), method.view_spec(config.augment)
    params = sample_view_params(train.seed, epoch, indices, spec, config.augment, size)
    views = make_views(images, params)
    if method.prepare is not None:
        model = build_model(
            config.model.name,
            num_classes=image_set.num_classes,
            mean=image_set.mean,
            std=image_set.std,
            seed=train.seed,
            image_size=size,
        )
        context = StepContext(
            config=config, model=model, num_classes=image_set.num_classes, epoch=epoch, indices=indices
        )
        views, _ = method.prepare(views, labels, context)
    titles = _titles(config.method, method.layout(config.augment))
    pictures = [("Training image", strip(small(images.permute(0, 2, 3, 1).contiguous().numpy())))]
    pictures += [
        (title, strip(small(_to_u8(view)))) for title, view in zip(titles, views.chunk(len(titles)), strict=True)
    ]
    return Gallery(tuple((title, png_address(row), (row.shape[1], row.shape[0])) for title, row in pictures))


def _titles(method: str, layout: Layout) -> list[str]:
    """What each view is, in the order of `layout`."""
    changed = {"cutout", "mixup", "cutmix", "autoaugment", "trivialaugment"}
    titles = ["Mixed or covered" if method in changed else "Clean view"] * layout.clean
    for title, number in (("AugMix", layout.augmix), ("Noisy", layout.noisy), ("Adversarial", layout.adversarial)):
        titles += [f"{title} {i + 1}" if number > 1 else title for i in range(number)]
    return titles


def _to_u8(view: Tensor) -> np.ndarray:
    """float [N, 3, H, W] -> uint8 [N, H, W, 3], noise clipped to what a screen can show."""
    return (255 * view.detach().clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()

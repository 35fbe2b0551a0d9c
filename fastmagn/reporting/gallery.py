"""What the model saw: the first training images of a run in all their views, from its folder or made again."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fastmagn.config.command_line import config_of
from fastmagn.config.own_code import explained
from fastmagn.config.schema import Config, DataConfig
from fastmagn.data import ImageSet, load_data
from fastmagn.errors import InputError
from fastmagn.reporting.pictures import png_address, small, stored_png, strip
from fastmagn.reporting.runs import FinishedRun
from fastmagn.runs.paths import VIEWS
from fastmagn.training.first_views import first_views, what_made_them

NUM_IMAGES = 8

ImagesOf = Callable[[DataConfig], ImageSet]


class Gallery(NamedTuple):
    """Pictures, each (caption, address, size in px), stored or made again; or no picture, and a note that says why.

    `made_by` has what made the views in words, a list for each title of a view, in the order of the images.
    """

    pictures: tuple[tuple[str, str, tuple[int, int]], ...] = ()
    made_by: Mapping[str, Sequence[str]] = MappingProxyType({})
    note: str = ""
    is_stored: bool = False


def images_loader() -> ImagesOf:
    """A `load_data` that reads each image set once and never downloads."""
    load_once = cache(load_data)
    return lambda config: load_once(dataclasses.replace(config, download=False, num_validation_images=0))


def read_config(run: FinishedRun) -> Config:
    """The run's configuration as a Config. Absent fields have their defaults.

    Raises:
        InputError: This version does not know a field or a value.
    """
    try:
        imports = run.config.get("imports")
        with explained(Path(imports) if isinstance(imports, str) else None):
            return config_of(run.config)
    except InputError as error:
        raise InputError(f"{run.path}: {error}") from error


def gallery(run: FinishedRun, images_of: ImagesOf) -> Gallery:
    """RUN/views.png if the run has written one; else the views of its first images, made again."""
    if run.weights:
        return Gallery(note="Views are not shown: how weights from a file were trained is not known.")
    stored = run.folder / VIEWS
    try:
        if os.path.isfile(stored):
            address, size = stored_png(stored)
            picture = (f"As the run began ({VIEWS}): a row per image, a column per view.", address, size)
            return Gallery((picture,), _made_by(run, images_of), is_stored=True)
        config = read_config(run)
        with explained(config.imports):
            shown = first_views(config, images_of(config.data), NUM_IMAGES)
    except (InputError, OSError) as error:
        return Gallery(note=f"Views are not shown: {error}")
    pictures = {"Training image": shown.images_u8} | shown.views_u8
    rows = {title: strip(small(images_u8)) for title, images_u8 in pictures.items()}
    made = tuple((title, png_address(row), (row.shape[1], row.shape[0])) for title, row in rows.items())
    return Gallery(made, shown.made_by)


def _made_by(run: FinishedRun, images_of: ImagesOf) -> Mapping[str, Sequence[str]]:
    """What made the stored views; nothing where this machine lacks the images, or this version a field of the run."""
    with suppress(InputError, OSError):
        config = read_config(run)
        return what_made_them(config, images_of(config.data), NUM_IMAGES)
    return {}

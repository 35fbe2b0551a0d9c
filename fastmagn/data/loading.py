"""Loads an image set by its name."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastmagn.config.schema import DataConfig
from fastmagn.data import ARRAYS_ALONE, DATASETS, ENCODED, OWN
from fastmagn.data.encoded_set import encoded_test
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImageSet, check_class_names
from fastmagn.errors import MissingSplit, counted
from fastmagn.machine.console import warn
from fastmagn.machine.torchrun import rank
from fastmagn.registry import resolve

_SHARDED = ("webdataset", "hf")


def load_data(config: DataConfig) -> ImageSet:
    """The image set that a configuration names, in host memory; encoded images are decoded when they are read.

    Raises:
        InputError: The name is unknown, or files are missing or are not the published ones.
    """
    load = resolve(DATASETS, config.name, "data.name")
    image_set: ImageSet = load(config) if config.name in ENCODED else load(config.dir, config.download)
    return image_set


def load_measured(config: DataConfig, model_classes: Sequence[str] | None = None) -> ImageSet:
    """`load_data` for an evaluation, which needs no training images: where they are missing, the test images alone.

    These may be of some of the model's classes only; without training images they do not say which the others are.

    Args:
        config: Which images.
        model_classes: The names of the model's classes, in the order of its labels; None if they are not known.

    Raises:
        InputError: As `load_data`; or a class has a name that results cannot keep.
    """
    image_set = load_test(config)
    check_kept_names(image_set, config)
    if model_classes is None or len(image_set.train_labels):
        return image_set
    return _among(tuple(model_classes), image_set)


def check_kept_names(image_set: ImageSet, config: DataConfig) -> None:
    """Raise InputError if a class of the images that `config` names has a name that results cannot keep."""
    where = str(config.dir) if config.name in OWN else f"data.name {config.name}"
    check_class_names(image_set.class_names, where)


def load_test(config: DataConfig) -> ImageSet:
    """The image set; without training images where they are missing.

    Raises:
        InputError: As `load_data`.
    """
    try:
        return load_data(config)
    except MissingSplit as error:
        if config.name not in ENCODED and config.name not in ARRAYS_ALONE:  # a function of the user's own
            raise
        try:
            if config.name in ENCODED:
                images, class_names = resolve(ENCODED, config.name, "data.name")(config)
                return encoded_test(config, images, class_names)
            image_set: ImageSet = resolve(ARRAYS_ALONE, config.name, "data.name")(config.dir)
            return image_set
        except MissingSplit:
            raise error from None


def _among(model_classes: tuple[str, ...], image_set: ImageSet) -> ImageSet:
    """Test images alone with the model's labels for their classes, if each of these is one of the model's."""
    own, numbers = image_set.class_names, tuple(map(str, range(len(model_classes))))
    present = {own[label] for label in np.unique(image_set.test_labels)}
    if rank() == 0 and len(present) < len(model_classes):
        warn(f"there are test images of {len(present)} of the model's {counted(len(model_classes), 'class', ',')}.")
    are_numbers = image_set.name != "folder" and own == numbers[: len(own)]
    # Numbers in shards may be names: they are, if others of the set's labels are no numbers.
    if are_numbers and (image_set.name not in _SHARDED or not present <= set(model_classes)):
        return dataclasses.replace(image_set, class_names=numbers)
    if not are_numbers and not set(own) <= set(model_classes):
        return image_set  # which `check_classes` judges
    label_of = {name: label for label, name in enumerate(model_classes)}
    labels = np.array([label_of.get(name, -1) for name in own], np.int64)[image_set.test_labels]
    images = image_set.test_images_u8
    if isinstance(images, FolderImages):
        images = FolderImages(dataclasses.replace(images.files, labels=labels), images.config)
    return dataclasses.replace(
        image_set, class_names=model_classes, test_images_u8=images, test_labels=labels, train_images_u8=images[:0]
    )


def load_images(name: str, dir: Path, download: bool = False) -> ImageSet:
    """`load_data` without a configuration.

    Args:
        name: A key of DATASETS.
        dir: The folder that holds (or, with `download`, will hold) the published folder of the set; digits needs none.
        download: Fetch the set if it is missing.
    """
    return load_data(DataConfig(name=name, dir=Path(dir), download=download))

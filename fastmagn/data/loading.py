"""Loads an image set by its name."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastmagn.config.schema import DataConfig
from fastmagn.data import ARRAYS_ALONE, DATASETS, ENCODED
from fastmagn.data.encoded_set import encoded_test
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import MissingSplit
from fastmagn.registry import resolve


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
        InputError: As `load_data`.
    """
    image_set = load_test(config)
    if model_classes is None or len(image_set.train_labels):
        return image_set
    return _among(tuple(model_classes), image_set)


def load_test(config: DataConfig) -> ImageSet:
    """The image set; without training images where they are missing.

    Raises:
        InputError: As `load_data`.
    """
    try:
        return load_data(config)
    except MissingSplit as error:
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
    if image_set.name != "folder" and own == numbers[: len(own)]:  # labels without names, which have an order only
        return dataclasses.replace(image_set, class_names=numbers)
    if not set(own) <= set(model_classes):
        return image_set  # which `check_classes` judges
    label_of = {name: label for label, name in enumerate(model_classes)}
    labels = np.array([label_of[name] for name in own], np.int64)[image_set.test_labels]
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

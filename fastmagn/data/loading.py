"""Loads an image set by its name."""

from pathlib import Path

from fastmagn.config.schema import DataConfig
from fastmagn.data import DATASETS, ENCODED
from fastmagn.data.image_set import ImageSet
from fastmagn.registry import resolve


def load_data(config: DataConfig) -> ImageSet:
    """The image set that a configuration names, in host memory; encoded images are decoded when they are read.

    Raises:
        InputError: The name is unknown, or files are missing or are not the published ones.
    """
    load = resolve(DATASETS, config.name, "data.name")
    image_set: ImageSet = load(config) if config.name in ENCODED else load(config.dir, config.download)
    return image_set


def load_images(name: str, dir: Path, download: bool = False) -> ImageSet:
    """`load_data` without a configuration.

    Args:
        name: A key of DATASETS.
        dir: The folder that holds (or, with `download`, will hold) the published folder of the set; digits needs none.
        download: Fetch the set if it is missing.
    """
    return load_data(DataConfig(name=name, dir=Path(dir), download=download))

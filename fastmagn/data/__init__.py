"""Data sets: uint8 images, and the sources that yield batches of them: on the device, or decoded as they are needed."""

from pathlib import Path

import torch

from fastmagn.config.schema import DataConfig
from fastmagn.data.corrupted.npy import open_corrupted
from fastmagn.data.files.on_demand import FolderImages, load_folder_images
from fastmagn.data.folder_source import FolderSource
from fastmagn.data.image_set import ImagePart, ImageSet, split_validation
from fastmagn.data.source import Batch, DeviceSource
from fastmagn.registry import resolve

__all__ = ["DATASETS", "Batch", "DeviceSource", "FolderImages", "FolderSource", "ImagePart", "ImageSet"]
__all__ += ["load_data", "load_folder_images", "load_images", "make_source", "open_corrupted", "split_validation"]

# name -> "module:function"; each function takes (folder, download), folder's a DataConfig; each returns an ImageSet.
DATASETS: dict[str, str] = {
    "cifar10": "fastmagn.data.cifar:load_cifar10",
    "cifar100": "fastmagn.data.cifar:load_cifar100",
    "digits": "fastmagn.data.digits:load_digits",
    "folder": "fastmagn.data.folder_set:open_image_folder",
}


def load_data(config: DataConfig) -> ImageSet:
    """The image set that a configuration names, in host memory; that of `folder` is decoded when it is read.

    Raises:
        InputError: Unknown name; files that are missing, or are not what was published.
    """
    load = resolve(DATASETS, config.name, "data.name")
    return load(config) if config.name == "folder" else load(config.dir, config.download)


def load_images(name: str, dir: Path, download: bool = False) -> ImageSet:
    """`load_data` without a configuration.

    Args:
        name: A key of DATASETS.
        dir: The folder that holds (or, with `download`, will hold) the published folder of the set; digits needs none.
        download: Fetch the set where it is missing.
    """
    return load_data(DataConfig(name=name, dir=Path(dir), download=download))


def make_source(
    part: ImagePart, *, batch_size: int, seed: int, device: torch.device, share: slice
) -> DeviceSource | FolderSource:
    """Batches of a training part: from the device's memory, or decoded as they are needed."""
    kind = FolderSource if isinstance(part.images_u8, FolderImages) else DeviceSource
    return kind(part, batch_size=batch_size, seed=seed, device=device, share=share)

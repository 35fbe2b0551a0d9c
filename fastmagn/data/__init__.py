"""Data sets: images as uint8 arrays, and the source that keeps them on the device and yields batches."""

from pathlib import Path

from fastmagn.data.corrupted import open_corrupted
from fastmagn.data.folder import load_folder_images
from fastmagn.data.image_set import ImagePart, ImageSet, split_validation
from fastmagn.data.source import Batch, DeviceSource
from fastmagn.registry import resolve

__all__ = ["DATASETS", "Batch", "DeviceSource", "ImagePart", "ImageSet", "load_folder_images"]
__all__ += ["load_images", "open_corrupted", "split_validation"]

# name -> "module:function"; each function takes (folder, download) and returns an ImageSet.
DATASETS: dict[str, str] = {
    "cifar10": "fastmagn.data.cifar:load_cifar10",
    "cifar100": "fastmagn.data.cifar:load_cifar100",
    "digits": "fastmagn.data.digits:load_digits",
}


def load_images(name: str, dir: Path, download: bool = False) -> ImageSet:
    """The data set registered as `name`, in host memory.

    Args:
        name: A key of DATASETS.
        dir: The folder that holds (or, with `download`, will hold) the published folder of the set; digits needs none.
        download: Fetch the set where it is missing.

    Raises:
        InputError: Unknown name; files that are missing, or are not what was published.
    """
    return resolve(DATASETS, name, "data.name")(Path(dir), download)

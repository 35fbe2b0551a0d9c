"""Whether images are there at all: said before PyTorch is imported, which takes seconds, on a busy machine a minute."""

from fastmagn.config.schema import DataConfig
from fastmagn.data import DATASETS
from fastmagn.errors import InputError
from fastmagn.registry import is_own

_FETCHED = ("cifar10", "cifar100", "torchvision:CIFAR10", "torchvision:CIFAR100")


def check_present(data: DataConfig) -> None:
    """Check that `data.dir` is there, if the data set reads files of it and nothing is downloaded.

    Raises:
        InputError: It is not.
    """
    reads_files = data.name in DATASETS and data.name != "digits" and not is_own(DATASETS, data.name)
    if data.download or not reads_files or data.dir.exists():
        return
    fetch = "fetch them with --data.download true, " if data.name in _FETCHED else ""
    raise InputError(
        f"data.dir: {data.dir}: no such file or folder; expected the images of {data.name} there. Name another"
        f" --data.dir, {fetch}or use --data.name digits, which needs no files."
    )

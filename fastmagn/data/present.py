"""Whether images are there at all: said before PyTorch is imported, which takes seconds, on a busy machine a minute."""

from fastmagn.config.schema import DataConfig
from fastmagn.data import DATASETS, OWN
from fastmagn.errors import InputError
from fastmagn.registry import is_own

_FETCHED = ("cifar10", "cifar100", "torchvision:CIFAR10", "torchvision:CIFAR100")
_FETCH = {
    **dict.fromkeys(_FETCHED, "fetch them with --data.download true, "),
    "hf": "fetch a set of the hub, whose name --data.dir is, with --data.download true, ",
}


def check_present(data: DataConfig) -> None:
    """Check that `data.dir` is there, if the data set reads files of it and nothing is downloaded.

    Raises:
        InputError: It is not.
    """
    reads_files = data.name in DATASETS and data.name != "digits" and not is_own(DATASETS, data.name)
    if data.download or not reads_files or data.dir.exists():
        return
    raise InputError(
        f"data.dir: {data.dir}: no such file or folder; expected the images of {data.name} there{_layout(data.name)}."
        f" Name another --data.dir, {_FETCH.get(data.name, '')}or use --data.name digits, which needs no files."
    )


def _layout(name: str) -> str:
    """What a right folder looks like, to follow "the images of NAME there"; empty for CIFAR."""
    if name in OWN:
        return f": {OWN[name]}"
    title = name.partition(":")[2].partition("-")[0]  # EMNIST-letters is a split of EMNIST
    return f", as torchvision.datasets.{title}(root=DIR) stores them" if title and name not in _FETCHED else ""

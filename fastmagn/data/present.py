"""Whether images are there at all: said before PyTorch is imported, which takes seconds, on a busy machine a minute."""

from pathlib import Path

from fastmagn.config.schema import DataConfig
from fastmagn.data import DATASETS, OWN
from fastmagn.errors import InputError
from fastmagn.registry import is_own

_FETCHED = ("cifar10", "cifar100", "torchvision:CIFAR10", "torchvision:CIFAR100")
_FETCH = {
    **dict.fromkeys(_FETCHED, "fetch them with --data.download true"),
    "hf": "fetch a set of the hub, whose name --data.dir is, with --data.download true",
}
_DIGITS = "use --data.name digits, which needs no files"


def check_present(data: DataConfig, *, instead: bool = True, of_run: Path | None = None) -> None:
    """Check that `data.dir` is there, if the data set reads files of it and nothing is downloaded.

    Args:
        data: Which images.
        instead: Whether the command could do without them, on the digits: a model is measured on no other images.
        of_run: The `data.dir` of the trained run that is measured on these images; None without a run.

    Raises:
        InputError: It is not.
    """
    reads_files = data.name in DATASETS and data.name != "digits" and not is_own(DATASETS, data.name)
    if data.download or not reads_files or data.dir.exists():
        return
    *ways, last = [way for way in (_another(data.dir, of_run), _FETCH.get(data.name), instead and _DIGITS) if way]
    raise InputError(
        f"data.dir: {data.dir}: no such file or folder; expected the images of {data.name} there{_layout(data.name)}."
        f" {', '.join(ways)}{', or ' if ways else ''}{last}."
    )


def _another(given: Path, of_run: Path | None) -> str:
    if of_run is None or given != of_run:
        return "Name another --data.dir"
    why = "not on this machine" if of_run.is_absolute() else "relative to the folder where it was trained"
    return f"Give --data.dir (the run's own, {of_run}, is {why})"


def _layout(name: str) -> str:
    """What a right folder looks like, to follow "the images of NAME there"; empty for CIFAR."""
    if name in OWN:
        return f": {OWN[name]}"
    title = name.partition(":")[2].partition("-")[0]  # EMNIST-letters is a split of EMNIST
    return f", as torchvision.datasets.{title}(root=DIR) stores them" if title and name not in _FETCHED else ""

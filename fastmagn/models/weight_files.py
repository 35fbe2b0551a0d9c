"""Reads named tensors from files of others: safetensors, or torch.save without running what a file names."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from fastmagn.archives import check_members, is_archive
from fastmagn.errors import InputError, one_line
from fastmagn.models.published import published_file, published_names

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar")
# The keys under which checkpoints keep the weights: fastmagn and torchvision's references use the first; AugMix, timm
# and most others the second.
_HOLDERS = ("model", "state_dict", "model_state_dict", "net")
_MAX_NAME_CHARS = 80
# In a safetensors file of `fastmagn.export`: the entry of its metadata, and the noises of rse's ensemble.
OUR_METADATA, NOISES = "fastmagn", "noises"


class _Ignored:
    """Stands for what a checkpoint holds beside the weights: read, and not needed.

    NumPy's numbers and arrays are such, as of the best accuracy, and the command line of the references of timm and
    torchvision.
    """

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_IGNORED_NAMES = (
    "argparse.Namespace",
    *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct"),
    *("numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct"),
)


class Weights(NamedTuple):
    """The tensors of a file.

    Args:
        tensors: By the names that they have there.
        left_out: What of the file is not among them, in words; empty if nothing.
    """

    tensors: dict[str, Tensor]
    left_out: str = ""


def read_weights(path: Path, field: str) -> Weights:
    """A file's named tensors, on the CPU. No code in the file is run.

    Args:
        path: The file, or the name of a published model.
        field: The field or option that names it, for the messages.

    Raises:
        InputError: The file is missing, damaged or of another kind, or holds no named tensors.
    """
    path = published_file(path) or path
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{field}: got {path}; expected a file named *{', *'.join(SUFFIXES)}, or {published_names(path)}"
        )
    if not path.is_file():
        raise InputError(f"{field}: {path}: no such file; expected weights of this network.")
    is_safetensors = path.suffix.lower() == ".safetensors"
    content, left_out = _read_safetensors(path, field) if is_safetensors else (_read_torch(path, field), "")
    for holder in _HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    tensors = isinstance(content, dict) and all(_is_named_tensor(name, value) for name, value in content.items())
    if not tensors or not content:
        raise InputError(f"{field}: {path} holds no named weights; expected a state_dict of the network.")
    return Weights(content, left_out)


def _read_torch(path: Path, field: str) -> Any:
    try:
        ignored: list[Any] = [(_Ignored, name) for name in _IGNORED_NAMES]
        with path.open("rb") as file, torch.serialization.safe_globals(ignored):
            if is_archive(file):  # not PyTorch's older form, which does not compress
                check_members(file)
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the reader fail in any way
        refused = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = f": it needs {refused[1][:_MAX_NAME_CHARS]}; save its state_dict alone" if refused else ""
        reason = f"{type(error).__name__}; nothing in it was run"
        raise InputError(f"{field}: {path} cannot be read as a file of torch.save{why} ({reason}).") from error


def _read_safetensors(path: Path, field: str) -> tuple[dict[str, Tensor], str]:
    """The tensors, and what is left out: a file of fastmagn's may hold the noises of rse's ensemble."""
    try:
        with safe_open(path, framework="pt") as file:
            is_ours = OUR_METADATA in (file.metadata() or {})
        tensors = load_file(path)  # in the order of the file, which `match_by_order` needs
    except Exception as error:  # likewise
        raise InputError(f"{field}: {path} cannot be read as safetensors ({one_line(error)}).") from error
    is_ensemble = is_ours and tensors.pop(NOISES, None) is not None
    return tensors, "the noises of its ensemble: this is the network alone" if is_ensemble else ""


def _is_named_tensor(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    )

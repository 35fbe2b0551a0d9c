"""Loads initial weights from a file: of a fastmagn run, of timm or of torchvision."""

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fastmagn.errors import InputError, one_line, some

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar")
# The keys under which checkpoints keep the weights: fastmagn and torchvision's references use the first; AugMix, timm
# and most others the second.
_HOLDERS = ("model", "state_dict")
# The prefixes that wrappers give names: torch.nn.DataParallel and DistributedDataParallel; torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")
_NETWORK = "network."  # the prefix that Normalised gives names
_REMEDY = "Give weights of this network, or the network's name by --model.name."
_MAX_NAME_CHARS = 80
# What the readers raise for damaged files.
_DAMAGED = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    MemoryError,
)


def load_pretrained(network: nn.Module, path: Path, num_classes: int) -> str:
    """Copy a file's weights into a network; no code in the file is run.

    The names may be those of the network itself, of a whole fastmagn model (`Normalised`, whose mean and standard
    deviation are not copied) or of a wrapped network (`module.`, `_orig_mod.`). The weights may be stored under `model`
    or `state_dict`, as in checkpoints. The network's last layer keeps its new weights if the file's has another number
    of classes, or if the file has none.

    Args:
        network: A float32 network without `Normalised`; changed in place, and not at all if an error is raised.
        path: A .safetensors file, or a file of torch.save: .pt, .pth, .bin, .tar.
        num_classes: K of the network.

    Returns:
        What was loaded and which tensors stayed new, in one line.

    Raises:
        InputError: The file is missing, damaged or of another kind; a name or a shape does not fit; or a value is not
            finite.
    """
    given = _network_names(_read_weights(path))
    wanted = network.state_dict()
    unknown = [name for name in given if name not in wanted]
    # Files of before PyTorch 0.4.1 do not count batches, and only an average without momentum needs the count.
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    misshapen = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    new = _classifier(wanted, given, missing + misshapen, num_classes)
    problems = {
        "has names that the network lacks": unknown,
        "lacks": [name for name in missing if name not in new],
        "has other shapes": [_shapes(name, given, wanted) for name in misshapen if name not in new],
    }
    for problem, names in problems.items():
        if names:
            raise InputError(f"model.weights: {path} {problem}: {_some(names)}. {_REMEDY}")
    kept = {name: given[name] for name in wanted if name in given and name not in new}
    bad = [name for name, value in kept.items() if not _is_usable(value, wanted[name])]
    if bad:
        raise InputError(f"model.weights: {path} has values that are not finite numbers: {_some(bad)}. Get it again.")
    network.load_state_dict(kept, strict=False)
    numbers = sum(value.numel() for value in kept.values())
    count = f"{len(kept)} of {len(wanted)} tensors, {numbers / 1e6:.2f} M numbers"
    return f"weights from {path}: {count}; new for {num_classes} classes: {', '.join(new) or 'none'}"


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A file's named tensors, on the CPU."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"model.weights: got {path}; expected a file named *{', *'.join(SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"model.weights: {path}: no such file; expected weights of this network.")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    for holder in _HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    tensors = isinstance(content, dict) and all(_is_named_tensor(name, value) for name, value in content.items())
    if not tensors or not content:
        raise InputError(f"model.weights: {path} holds no named weights; expected a state_dict of the network.")
    return content


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGED, pickle.UnpicklingError, EOFError) as error:
        reason = f"{type(error).__name__}; nothing in it was run"
        raise InputError(f"model.weights: {path} cannot be read as a file of torch.save ({reason}).") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (*_DAMAGED, SafetensorError) as error:
        raise InputError(f"model.weights: {path} cannot be read as safetensors ({one_line(error)}).") from error


def _is_named_tensor(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    )


def _network_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names that they have in the network itself."""
    for prefix in (*_WRAPPERS, *_WRAPPERS):
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    own = {name for name in weights if name not in ("mean", "std")}
    if own and all(name.startswith(_NETWORK) for name in own):
        weights = {name.removeprefix(_NETWORK): weights[name] for name in weights if name in own}
    return dict(weights)


def _classifier(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], unfit: Iterable[str], num_classes: int
) -> list[str]:
    """The tensors of the last layer among those that do not fit: [K, ...] in the network, [other K, ...] in the file.

    Empty unless all tensors that do not fit differ in this one way, and no weight matrix or filter after them fits.
    """
    unfit = list(unfit)
    names = list(wanted)
    first = min((names.index(name) for name in unfit), default=len(names))
    is_at_the_end = all(name in unfit for name in names[first:] if wanted[name].ndim > 1)
    file_classes = {given[name].shape[:1] for name in unfit if name in given}
    fits_otherwise = all(name not in given or given[name].shape[1:] == wanted[name].shape[1:] for name in unfit)
    is_for_classes = all(wanted[name].shape[:1] == (num_classes,) for name in unfit)
    return unfit if is_at_the_end and len(file_classes) <= 1 and fits_otherwise and is_for_classes else []


def _is_usable(value: Tensor, wanted: Tensor) -> bool:
    same_kind = value.is_floating_point() == wanted.is_floating_point() and not value.is_complex()
    return same_kind and not value.is_meta and bool(torch.isfinite(value).all())


def _shapes(name: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    return f"{name} {list(given[name].shape)} for {list(wanted[name].shape)}"


def _some(names: Iterable[str]) -> str:
    return some(name[:_MAX_NAME_CHARS] for name in names)  # a file's names may be of any length

"""First weights from a file, instead of drawn ones: of a run of fastmagn, of timm or of torchvision."""

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fastmagn.errors import InputError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar")
# Where checkpoints keep the weights: fastmagn's and torchvision's references, then AugMix's, timm's and most others.
_HOLDERS = ("model", "state_dict")
# What wrappers put before names: torch.nn.DataParallel and DistributedDataParallel, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")
_NETWORK = "network."  # Normalised's name of what it wraps
_REMEDY = "Give weights of this network, or the network's name by --model.name."
_SHOWN = 3


def load_pretrained(network: nn.Module, path: Path, num_classes: int) -> str:
    """Copy a file's weights into a network; nothing in the file is run.

    Names may be those of the network itself, of a whole model of fastmagn (`Normalised`, whose own mean and standard
    deviation are not taken over) or of a wrapped one (`module.`, `_orig_mod.`); the weights may lie under `model` or
    `state_dict`, as in checkpoints. A classifier of another number of classes keeps the network's new weights, and so
    does one that the file lacks.

    Args:
        network: Without `Normalised`, of float32; changed in place, if at all.
        path: .safetensors, or a file of torch.save: .pt, .pth, .bin, .tar.
        num_classes: K of the network.

    Returns:
        What was loaded and what stayed new, in one line.

    Raises:
        InputError: The file is missing, damaged, or of another kind; a name or a shape does not fit, a value is not
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
    """The named tensors of a file, on the CPU."""
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
        raise InputError(f"model.weights: {path} holds no weights by name; expected a state_dict of the network.")
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
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model.weights: {path} cannot be read as safetensors ({reason}).") from error


# What damaged files raise out of their readers.
_DAMAGED = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    MemoryError,
)


def _is_named_tensor(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    )


def _network_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by the names that they have in the bare network."""
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
    """Which of the tensors that do not fit are the classifier's, by their shapes: [K, ...] here, [other K, ...] there.

    None, unless all that does not fit does so in this one way, and no weight matrix or filter that fits comes later.
    """
    unfit = list(unfit)
    names = list(wanted)
    first = min((names.index(name) for name in unfit), default=len(names))
    at_the_end = all(name in unfit for name in names[first:] if wanted[name].ndim > 1)
    numbers_there = {given[name].shape[:1] for name in unfit if name in given}
    fits_else = all(name not in given or given[name].shape[1:] == wanted[name].shape[1:] for name in unfit)
    for_classes = all(wanted[name].shape[:1] == (num_classes,) for name in unfit)
    return unfit if at_the_end and len(numbers_there) <= 1 and fits_else and for_classes else []


def _is_usable(value: Tensor, wanted: Tensor) -> bool:
    same_kind = value.is_floating_point() == wanted.is_floating_point() and not value.is_complex()
    return same_kind and not value.is_meta and bool(torch.isfinite(value).all())


def _shapes(name: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    return f"{name} {list(given[name].shape)} for {list(wanted[name].shape)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:80] for name in names[:_SHOWN]) + more

"""Loads initial weights from a file: of a fastmagn run, of timm or torchvision, or published for CIFAR."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastmagn.errors import InputError, counted, some
from fastmagn.models.by_order import COUNTER, match_by_order
from fastmagn.models.classes import auxiliary_names
from fastmagn.models.densenet import match_older_form
from fastmagn.models.errors import Ambiguous
from fastmagn.models.weight_files import Weights, read_weights
from fastmagn.models.wrapped import unwrap

_REMEDY = "Give weights of this network, or the network's name by --model.name."
_MAX_NAME_CHARS = 80


class Loaded(NamedTuple):
    """What was loaded.

    Args:
        line: That in one line.
        new: Names of the tensors that kept their new values: the last layer's, or none.
        mean: What the file's model subtracts from each channel, pixels in [0, 1]; None if it does not say.
        std: What it then divides by; None likewise.
    """

    line: str
    new: list[str]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None


def load_pretrained(network: nn.Module, path: Path, num_classes: int) -> str:
    """Copy a file's weights into a network; no code in the file is run. See `load_weights`.

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
    field = "model.weights"
    return load_weights(network, read_weights(path, field), path, num_classes, field).line


def load_weights(network: nn.Module, weights: Weights, path: Path, num_classes: int, field: str) -> Loaded:
    """Copy weights into a network.

    The names may be those of the network itself, of a whole fastmagn model (`Normalised`, whose mean and standard
    deviation are not copied) or of a wrapped network (`module.`, `_orig_mod.`, `model.`); see `wrapped.unwrap`. The
    network's last layer keeps its new weights if the file's has another number of classes, or if the file has none.
    Where names do not fit, but all kinds and shapes agree in their order, the order decides
    (`by_order.match_by_order`).

    Args:
        network: A float32 network without `Normalised`; changed in place, and not at all if an error is raised.
        weights: What `read_weights` has read.
        path: The file, for the messages.
        num_classes: K of the network.
        field: The field or option that names the file, for the messages.

    Raises:
        InputError: A name or a shape does not fit, or a value is not finite.
    """
    unwrapped = unwrap(weights.tensors, network.state_dict().keys())
    heads = auxiliary_names(network, unwrapped.tensors)
    given = _with_whole_counts({name: value for name, value in unwrapped.tensors.items() if name not in heads})
    match_older_form(network, given)
    wanted = network.state_dict()
    how = ""
    if not all(name in wanted for name in given):
        ordered = _by_order(given, network, path, field)
        if ordered is not None:
            named = zip((name for name in given if not name.endswith(COUNTER)), ordered, strict=True)
            first = next(pair for pair in named if pair[0] != pair[1])
            how = f", by their order, as the names differ ({first[0][:_MAX_NAME_CHARS]} is {first[1]} here)"
            given = ordered
    new = _check_fit(given, wanted, num_classes, path, field)
    kept = {name: given[name] for name in wanted if name in given and name not in new}
    _check_values(kept, wanted, path, field)
    network.load_state_dict(kept, strict=False)
    numbers = sum(value.numel() for value in kept.values())
    loaded, total = (sum(not name.endswith(COUNTER) for name in names) for names in (kept, wanted))
    count = f"{loaded} of {counted(total, 'tensor')}, {numbers / 1e6:.2f} M numbers{how}"
    left_out = weights.left_out or ("its auxiliary heads" if heads else "")
    without = f"; without {left_out}" if left_out else ""
    line = f"weights from {path}: {count}{without}; new for {counted(num_classes, 'class')}: {', '.join(new) or 'none'}"
    return Loaded(line, new, unwrapped.mean, unwrapped.std)


def _by_order(given: Mapping[str, Tensor], network: nn.Module, path: Path, field: str) -> dict[str, Tensor] | None:
    try:
        return match_by_order(given, network)
    except Ambiguous as error:
        raise InputError(
            f"{field}: {path} has the shapes of this network under other names, but {error}. {_REMEDY}"
        ) from error


def _check_fit(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], num_classes: int, path: Path, field: str
) -> list[str]:
    """The names of the last layer's tensors if they must stay new.

    Raises:
        InputError: Anything else does not fit.
    """
    unknown = [name for name in given if name not in wanted]
    # Files of before PyTorch 0.4.1 do not count batches, and only an average without momentum needs the count.
    missing = [name for name in wanted if name not in given and not name.endswith(COUNTER)]
    misshapen = [name for name in wanted if name in given and given[name].shape != wanted[name].shape]
    new = _classifier(wanted, given, missing + misshapen, num_classes)
    problems = {
        "has names that the network lacks": unknown,
        "lacks": [name for name in missing if name not in new],
        "has other shapes": [_shapes(name, given, wanted) for name in misshapen if name not in new],
    }
    for problem, names in problems.items():
        if names:
            raise InputError(f"{field}: {path} {problem}: {_some(names)}. {_REMEDY}")
    return new


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


def _with_whole_counts(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with the counts of batches as integers: `half()` of a whole state_dict makes them floats.

    A count beyond the largest number of half precision is lost, and left out.
    """
    counts = {name: value for name, value in given.items() if name.endswith(COUNTER) and value.is_floating_point()}
    lost = {name for name, value in counts.items() if value.is_meta or not torch.isfinite(value).all()}
    whole = {name: value.long() for name, value in counts.items() if name not in lost}
    return {name: whole.get(name, value) for name, value in given.items() if name not in lost}


def _check_values(kept: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, field: str) -> None:
    """Raise InputError unless the values can be copied into the network."""
    numbers: list[str] = []
    kinds: list[str] = []
    for name, value in kept.items():
        if value.is_complex() or value.is_floating_point() != wanted[name].is_floating_point():
            kinds.append(f"{name} {_kind(value)} for {_kind(wanted[name])}")
        elif value.is_meta or not torch.isfinite(value).all():
            numbers.append(name)
    if kinds:
        raise InputError(f"{field}: {path} has numbers of another kind: {some(kinds)}. {_REMEDY}")
    if numbers:
        raise InputError(
            f"{field}: {path} has values that are not finite numbers: {_some(numbers)}. Download it again."
        )


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _shapes(name: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    return f"{name} {list(given[name].shape)} for {list(wanted[name].shape)}"


def _some(names: Iterable[str]) -> str:
    return some(name[:_MAX_NAME_CHARS] for name in names)  # a file's names may be of any length

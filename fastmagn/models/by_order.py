"""Weights of the same network under other names: matched by their order, where that is certain.

Two implementations of a network that register the same layers in the same order have state_dicts whose entries agree
one to one in kind and shape. That does not suffice: layers of one shape may be exchanged, and functions without weights
may differ. So what the names and the running statistics say about both is checked too.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from fastmagn.models.densenet import order_channels
from fastmagn.models.errors import Ambiguous

COUNTER = "num_batches_tracked"  # no weight: a count of batches, which files of before PyTorch 0.4.1 lack
_SHORTCUT = re.compile("shortcut|downsample|skip", re.IGNORECASE)
_DEEPMINDS = re.compile(r"(^|\.)batchnorm_\d+\.")


def match_by_order(given: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor] | None:
    """The given tensors under the network's names, by their order; None if kinds and shapes do not agree one to one.

    The kind of a tensor is the last part of its name: weight, bias, running_mean, running_var.

    Args:
        given: A file's tensors by name, in their order there.
        network: The network.

    Raises:
        Ambiguous: They agree, but it is not certain that the same order gives the same function.
    """
    wanted = {name: value for name, value in network.state_dict().items() if not name.endswith(COUNTER)}
    given = {name: value for name, value in given.items() if not name.endswith(COUNTER)}
    if [_form(*one) for one in given.items()] != [_form(*one) for one in wanted.items()]:
        return None
    names = dict(zip(given, wanted, strict=True))
    _check_padding(names)
    _check_numbers(names)
    _check_shortcuts(names)
    _check_activations(given)
    return order_channels(network, {names[name]: value for name, value in given.items()})


def _form(name: str, value: Tensor) -> tuple:
    return name.rpartition(".")[2], value.shape


def _check_padding(names: Iterable[str]) -> None:
    """DeepMind's networks for adversarial robustness, which RobustBench has too, pad as TensorFlow's SAME does."""
    if found := next((name for name in names if _DEEPMINDS.search(name)), None):
        raise Ambiguous(
            f"its names are of DeepMind's layout ({found}), whose convolutions with stride 2 pad at the bottom and"
            " right only; many have SiLU in place of ReLU"
        )


def _check_numbers(names: Iterable[str]) -> None:
    """Layers that their file numbers must come in the order of the numbers."""
    last: dict[tuple[str, str, str], int] = {}
    for name in names:
        parts = name.split(".")[:-1]
        for depth, part in enumerate(parts):
            if match := re.fullmatch(r"(\D*)(\d+)(.*)", part):
                series, number = (".".join(parts[:depth]), match[1], match[3]), int(match[2])
                if number < last.get(series, number):
                    raise Ambiguous(f"its layers are not in the order of their numbers ({name})")
                last[series] = number


def _check_shortcuts(names: Mapping[str, str]) -> None:
    """The file's shortcuts must be the network's."""
    for name, wanted in names.items():
        if bool(_SHORTCUT.search(name)) != bool(_SHORTCUT.search(wanted)):
            raise Ambiguous(f"its names do not say that the same layers are shortcuts ({name} would be {wanted})")


def _check_activations(given: Mapping[str, Tensor]) -> None:
    """In an nn.Sequential a number is left out for the ReLU between a batch normalisation and a convolution."""
    normalisations = {name.removesuffix(".running_mean") for name in given if name.endswith(".running_mean")}
    for name, value in given.items():
        parent, _, number = name.removesuffix(".weight").rpartition(".")
        before = f"{parent}.{int(number) - 1}" if number.isdecimal() and value.ndim == 4 else None
        if before in normalisations:
            raise Ambiguous(f"it has no ReLU between {before} and {parent}.{number}, and this network has")

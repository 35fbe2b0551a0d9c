"""Adapts other libraries' networks: they must take images of the data set's size, and draw nothing in training."""

import torch
from torch import Tensor, nn

from fastmagn.errors import InputError, one_line

# What a network raises if it is made for images of another size.
SIZE_ERRORS = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ZeroDivisionError)


def try_one_image(network: nn.Module, height: int, width: int) -> Tensor:
    """The logits of a black image of this size; fails if the network is for another size or has too many strides."""
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, height, width))
    network.train()
    return logits


def size_fault(name: str, image_size: tuple[int, int], error: Exception) -> InputError:
    """The exception to raise if a library's network `name` fails on images of (H, W) px."""
    height, width = image_size
    return InputError(
        f"model.name: {name} cannot take images of {height}x{width} px ({one_line(error)}); expected a network that"
        " can. Name another, or give images of another size."
    )


def turn_off_dropout(network: nn.Module) -> None:
    """Turn off dropout and stochastic depth, in place: as modules, and as rates that a module's forward reads."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for rate in ("drop_prob", "drop_rate"):  # timm's stochastic depth; networks that call dropout as a function
            if hasattr(module, rate):
                setattr(module, rate, 0.0)

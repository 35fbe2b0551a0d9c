"""Making networks of other libraries fit this one: they take images of its size, and draw nothing in training."""

import torch
from torch import Tensor, nn

from fastmagn.errors import InputError

# What a network raises that is made for images of another size.
UNSUITABLE = (RuntimeError, AssertionError, ValueError, TypeError, IndexError, ZeroDivisionError)


def try_one_image(network: nn.Module, height: int, width: int) -> Tensor:
    """The logits of a black image: what a network of another image size, or of too many strides, cannot compute."""
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, height, width))
    network.train()
    return logits


def unsuitable(name: str, image_size: tuple[int, int], error: Exception) -> InputError:
    """What to raise where a library's network `name` fails on images of (H, W) px."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(
        f"model.name: {name} cannot take images of {image_size[0]}x{image_size[1]} px ({reason[:200]}); expected a "
        "network that can. Name another, or give images of another size."
    )


def turn_off_dropout(network: nn.Module) -> None:
    """No dropout and no stochastic depth, in place; as modules, or as rates that a module's forward reads."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for rate in ("drop_prob", "drop_rate"):  # timm's stochastic depth; networks that call dropout as a function
            if hasattr(module, rate):
                setattr(module, rate, 0.0)

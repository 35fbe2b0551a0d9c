"""Whether a network is of a class of torchvision, whose import takes a second and must not be paid to ask."""

import sys

from torch import nn


def is_torchvision(network: nn.Module, module: str, name: str) -> bool:
    """Whether the network is a `torchvision.models.MODULE.NAME`, whose module has then been imported."""
    found = sys.modules.get(f"torchvision.models.{module}")
    return found is not None and isinstance(network, getattr(found, name))

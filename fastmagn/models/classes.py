"""Whether a network is of a class of torchvision, whose import takes a second and must not be paid to ask."""

import sys
from collections.abc import Iterable

from torch import nn

_AUXILIARY = {("googlenet", "GoogLeNet"): ("aux1.", "aux2."), ("inception", "Inception3"): ("AuxLogits.",)}


def is_torchvision(network: nn.Module, module: str, name: str) -> bool:
    """Whether the network is a `torchvision.models.MODULE.NAME`, whose module has then been imported."""
    found = sys.modules.get(f"torchvision.models.{module}")
    return found is not None and isinstance(network, getattr(found, name))


def auxiliary_names(network: nn.Module, names: Iterable[str]) -> set[str]:
    """Those of a file's names that are of auxiliary heads, which only the training of torchvision's weights needed.

    Args:
        network: Any network; torchvision's GoogLeNet and Inception-V3 have such heads, and here come without.
        names: The file's, without prefixes of wrappers.
    """
    prefixes = [heads for (module, name), heads in _AUXILIARY.items() if is_torchvision(network, module, name)]
    known = network.state_dict().keys()
    return {name for name in names if name not in known and name.startswith(sum(prefixes, ()))}

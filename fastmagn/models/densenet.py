"""Densely connected networks for 32x32 images."""

import copy
import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from fastmagn.models.classes import is_torchvision
from fastmagn.models.errors import Ambiguous

if TYPE_CHECKING:
    from torchvision.models.densenet import DenseNet

_STEM_NORM = "features.norm0.weight"


def densenet121(num_classes: int) -> nn.Module:
    """DenseNet-121 for 32x32 images with growth 32 (6,956,298 parameters for 10 classes)."""
    return _densenet121(num_classes, growth=32)


def densenet121_k12(num_classes: int) -> nn.Module:
    """DenseNet-121 for 32x32 images with growth 12 (1.0 M parameters)."""
    return _densenet121(num_classes, growth=12)


def _densenet121(num_classes: int, growth: int) -> nn.Module:
    """torchvision's DenseNet of 6, 12, 24 and 16 layers, whose stem is one 3x3 convolution of stride 1.

    The stem outputs 2 * growth maps, transitions halve the number of maps (compression 0.5), and there is no dropout.
    For 32x32 images the four blocks work at 32, 16, 8 and 4 pixels.

    Source: G. Huang et al., "Densely connected convolutional networks", CVPR 2017; the stem is the CIFAR practice. The
    ImageNet stem has a batch normalisation, a ReLU and a max-pool after its convolution.
    """
    from torchvision.models.densenet import DenseNet  # here: reading other networks' weights must not wait for it

    num_stem_maps = 2 * growth
    network = DenseNet(growth, (6, 12, 24, 16), num_stem_maps, num_classes=num_classes)
    stem = network.features
    stem.conv0 = nn.Conv2d(3, num_stem_maps, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.conv0.weight)  # as torchvision initialises the other layers
    stem.norm0, stem.relu0, stem.pool0 = nn.Identity(), nn.Identity(), nn.Identity()
    return network


def match_older_form(network: nn.Module, names: Collection[str]) -> None:
    """Give a network of this module the stem that its weights were trained with, in place.

    fastmagn 0.1.0 kept the ImageNet stem's batch normalisation and ReLU. Weights of that form are recognised by their
    names.

    Args:
        network: Any network; others are left as they are.
        names: Names of the weights, as in the network's state_dict.
    """
    stem: Any = getattr(network, "features", None)
    if _STEM_NORM in names and is_torchvision(network, "densenet", "DenseNet") and isinstance(stem.norm0, nn.Identity):
        # It has the same width, and may have been made to synchronise or to split its statistics.
        stem.norm0 = copy.deepcopy(stem.denseblock1.denselayer1.norm1)
        stem.norm0.reset_parameters()
        stem.relu0 = nn.ReLU(inplace=True)


class _Reader(NamedTuple):
    """A batch normalisation and the layer after it, whose input is a block's input and the maps of `num_new` layers."""

    norm: str
    layer: str
    block: int
    num_new: int


def _readers(network: "DenseNet") -> Iterator[_Reader]:
    blocks = [module for name, module in network.features.named_children() if name.startswith("denseblock")]
    for number, block in enumerate(blocks, start=1):
        for layer in range(len(block)):
            prefix = f"features.denseblock{number}.denselayer{layer + 1}"
            yield _Reader(f"{prefix}.norm1", f"{prefix}.conv1", number, layer)
        after = (f"features.transition{number}.norm", f"features.transition{number}.conv")
        yield _Reader(*(after if number < len(blocks) else ("features.norm5", "classifier")), number, len(block))


def order_channels(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with a block's channels in the order of this module: its input first, then each layer's new maps.

    Other implementations put a layer's new maps first, in tensors of the same shapes. The running statistics tell: all
    layers of a block see the maps of those before it, and so have the same statistics of them.

    Args:
        network: Any network; the weights of others than a DenseNet are returned as they are.
        weights: Under the network's names.

    Raises:
        Ambiguous: The statistics do not tell.
    """
    if not is_torchvision(network, "densenet", "DenseNet"):
        return dict(weights)
    readers = list(_readers(network))
    pairs = [(one, two) for one, two in itertools.pairwise(readers) if one.block == two.block]
    old_first = all(_repeats(weights, one, two, at_end=False) for one, two in pairs)
    new_first = all(_repeats(weights, one, two, at_end=True) for one, two in pairs)
    if old_first == new_first:
        raise Ambiguous("its batch normalisations do not say in which order it concatenates maps")
    ordered = dict(weights)
    if new_first:
        features: Any = network.features
        growth = features.denseblock1.denselayer1.conv2.out_channels
        for reader in readers:
            order = _old_first(len(weights[f"{reader.norm}.weight"]), growth, reader.num_new)
            for kind in ("weight", "bias", "running_mean", "running_var"):
                ordered[f"{reader.norm}.{kind}"] = weights[f"{reader.norm}.{kind}"][order]
            ordered[f"{reader.layer}.weight"] = weights[f"{reader.layer}.weight"][:, order]
    return ordered


def _old_first(width: int, growth: int, num_new: int) -> Tensor:
    """Where each of `width` channels is if the newest come first."""
    maps = torch.arange(width)
    new = maps[: num_new * growth].view(num_new, growth).flip(0).flatten()
    return torch.cat([maps[num_new * growth :], new])


def _repeats(weights: Mapping[str, Tensor], one: _Reader, two: _Reader, *, at_end: bool) -> bool:
    """Whether the statistics of `one` are those at the end, or at the beginning, of its successor `two`."""
    for kind in ("running_mean", "running_var"):
        before, after = weights[f"{one.norm}.{kind}"].float(), weights[f"{two.norm}.{kind}"].float()
        again = after[-len(before) :] if at_end else after[: len(before)]
        if not torch.allclose(before, again, rtol=1e-2, atol=1e-3 * float(before.abs().max())):
            return False
    return True

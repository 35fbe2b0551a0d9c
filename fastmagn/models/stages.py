"""A network's forward pass in stages, for methods that change feature maps between two of them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastmagn.errors import InputError
from fastmagn.models.building import Normalised
from fastmagn.models.classes import is_torchvision
from fastmagn.models.resnet import SmallResNet

# (stage from 1, its feature maps [B, C, H, W]) -> what the next stage is given, of the same shape.
Change = Callable[[int, Tensor], Tensor]
WITH_STAGES = "a ResNet, WideResNet, ResNeXt or DenseNet, such as resnet18 or wideresnet28_4"


def forward_in_stages(model: Normalised, images: Tensor, change: Change) -> Tensor:
    """The logits [B, K] of images [B, 3, H, W] in [0, 1] if `change` changes the feature maps after each stage.

    A stage is a run of blocks at one resolution: `stage1`, `stage2`, ... of this package's WideResNets and ResNeXts, a
    block of resnet_small, `layer1` to `layer4` of torchvision's ResNets, and a dense block of DenseNet. With a `change`
    that changes nothing, the logits are those of `model(images)`.
    """
    maps, stage = (images - model.mean) / model.std, 0
    for step, ends_stage in _steps(model.network):
        maps = step(maps)
        if ends_stage:
            stage += 1
            maps = change(stage, maps)
    return maps


def check_stages(model: Normalised, method: str, name: str) -> None:
    """Check that the model's network has stages.

    Args:
        model: The model.
        method: The method that needs them, for the message.
        name: The network's name, for the message.

    Raises:
        InputError: It has none.
    """
    if not any(ends_stage for _, ends_stage in _steps(model.network)):
        raise InputError(f"model.name: got {name!r}; expected {WITH_STAGES}, as {method} changes maps between stages.")


def _steps(network: nn.Module) -> list[tuple[Callable[[Tensor], Tensor], bool]]:
    """The parts whose composition is the network, each with whether it ends a stage; none of an unknown network."""
    known: Any = network
    if is_torchvision(network, "resnet", "ResNet"):
        stages = (known.layer1, known.layer2, known.layer3, known.layer4)
        return [
            *((part, False) for part in (known.conv1, known.bn1, known.relu, known.maxpool)),
            *((stage, True) for stage in stages),
            *((part, False) for part in (known.avgpool, _flattened, known.fc)),
        ]
    if is_torchvision(network, "densenet", "DenseNet"):
        return [
            *((part, name.startswith("denseblock")) for name, part in known.features.named_children()),
            *((part, False) for part in (torch.relu, _pooled, known.classifier)),
        ]
    if isinstance(network, SmallResNet):
        blocks = [(block, True) for block in network.blocks]
        return [(network.stem, False), *blocks, (_averaged, False), (network.head, False)]
    if isinstance(network, nn.Sequential):
        return [(part, name.startswith("stage")) for name, part in network.named_children()]
    return []


def _flattened(maps: Tensor) -> Tensor:
    return torch.flatten(maps, 1)


def _pooled(maps: Tensor) -> Tensor:
    return torch.flatten(F.adaptive_avg_pool2d(maps, 1), 1)


def _averaged(maps: Tensor) -> Tensor:
    return torch.mean(maps, dim=(2, 3))

"""Networks, by name. Every network takes images in [0, 1] and normalises them itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fastmagn.models.batchnorm import split_batch_norm
from fastmagn.models.sync_batchnorm import synchronise_batch_norm
from fastmagn.models.timm_networks import PREFIX as TIMM
from fastmagn.models.timm_networks import timm_network
from fastmagn.models.torchvision_networks import PREFIX as TORCHVISION
from fastmagn.models.torchvision_networks import torchvision_network
from fastmagn.registry import resolve

MODELS = {
    "resnet18": "fastmagn.models.resnet:resnet18",
    "resnet50": "fastmagn.models.resnet:resnet50",
    "resnet_small": "fastmagn.models.resnet:resnet_small",
    "densenet121": "fastmagn.models.densenet:densenet121",
    "densenet121_k12": "fastmagn.models.densenet:densenet121_k12",
    "inception_v3": "fastmagn.models.inception:inception_v3",
    "wideresnet28_10": "fastmagn.models.wide_resnet:wideresnet28_10",
    "wideresnet40_2": "fastmagn.models.wide_resnet:wideresnet40_2",
    "resnext29_32x4d": "fastmagn.models.resnext:resnext29_32x4d",
    "resnext29_4x32d": "fastmagn.models.resnext:resnext29_4x32d",
}


class Normalised(nn.Module):
    """A network behind its data set's normalisation, so that whoever calls it gives plain images.

    Images are float [B, 3, H, W] in [0, 1] (noisy ones may leave it); logits are [B, K].
    """

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def build_model(
    name: str,
    *,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int = 0,
    num_views: int = 1,
    bn_views: str = "joint",
    sync_bn: bool = False,
    image_size: tuple[int, int] = (32, 32),
) -> Normalised:
    """A network of the registry, torchvision or timm, with weights drawn from `seed`, on the CPU, float32.

    Args:
        name: A name of MODELS, or torchvision:NAME or timm:NAME for a network of theirs.
        num_classes: K, outputs of the network.
        mean: The data set's mean for each channel, pixels in [0, 1].
        std: The data set's standard deviation for each channel, pixels in [0, 1].
        seed: Seed of the weights; torch's global generator is left as it was.
        num_views: V, views that a fused batch stacks.
        bn_views: `joint`, or `per_view` for batch statistics of each view by itself, which changes nothing in a
            network without batch normalisation.
        sync_bn: Batch statistics of all processes' images.
        image_size: (H, W) of the images, px. Networks of MODELS take any size from 32x32; others are made for this one.

    Raises:
        InputError: An unknown name; timm is not installed; a network cannot take images of `image_size`; `sync_bn`
            and a batch normalisation that cannot be synchronised.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name.startswith(TIMM):
            network = timm_network(name.removeprefix(TIMM), num_classes, image_size)
        elif name.startswith(TORCHVISION):
            network = torchvision_network(name.removeprefix(TORCHVISION), num_classes, image_size)
        else:
            also = f", or {TORCHVISION}NAME or {TIMM}NAME for any network of torchvision or timm"
            network = resolve(MODELS, name, "model.name", also)(num_classes)
    if sync_bn:
        synchronise_batch_norm(network)
    if bn_views == "per_view":
        split_batch_norm(network, num_views)
    return Normalised(network, mean, std)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each of its modules is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training

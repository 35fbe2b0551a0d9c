"""Builds a network by its name, behind its normalisation."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.errors import InputError, form
from fastmagn.models import LIBRARIES, MODELS
from fastmagn.models.batchnorm import split_batch_norm
from fastmagn.models.sync_batchnorm import synchronise_batch_norm
from fastmagn.registry import is_own, resolve

# A name in MODELS -> "module:function"; a function takes the network and the names of its weights.
WITH_OLDER_FORMS = dict.fromkeys(("densenet121", "densenet121_k12"), "fastmagn.models.densenet:match_older_form")


class Normalised(nn.Module):
    """A network preceded by its data set's normalisation, so that callers pass plain images.

    Images are float [B, 3, H, W] in [0, 1] (noise may leave that range); logits are [B, K].
    """

    mean: Tensor
    std: Tensor

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
    weight_names: Collection[str] = (),
) -> Normalised:
    """A network of MODELS, torchvision or timm with weights drawn from `seed`, on the CPU, float32.

    Args:
        name: A name in MODELS, or torchvision:NAME or timm:NAME for a network of these libraries.
        num_classes: K, the number of outputs.
        mean: The data set's mean for each channel, pixels in [0, 1].
        std: The data set's standard deviation for each channel, pixels in [0, 1].
        seed: Seed of the weights; torch's global generators are left as they were.
        num_views: V, the number of views that a fused batch stacks.
        bn_views: `joint`, or `per_view` for separate batch statistics of each view; the same in a network without
            batch normalisation.
        sync_bn: Compute batch statistics over the images of all processes.
        image_size: (H, W) of the images, px. Networks of MODELS take any size from 32x32; others are built for this
            size.
        weight_names: Names of the weights that the model will be given, as in its state_dict. If an earlier version
            built another form of the network, they say which form is built.

    Raises:
        InputError: The name is unknown; timm is not installed; the network cannot take images of `image_size`; one
            of the user's own gives no logits [B, K]; or `sync_bn` is on and a batch normalisation cannot be
            synchronised.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_torch_seed(seed))  # torch.manual_seed also seeds CUDA
        network = _new_network(name, num_classes, image_size)
    if sync_bn:
        synchronise_batch_norm(network)
    if bn_views == "per_view":
        split_batch_norm(network, num_views)
    if name in WITH_OLDER_FORMS:
        match_older_form = resolve(WITH_OLDER_FORMS, name, "model.name")
        match_older_form(network, {weight.removeprefix("network.") for weight in weight_names})
    return Normalised(network, mean, std)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode; afterwards each of its modules is back in its own mode.

    What `torch.export` or `torch.jit.freeze` made computes in the mode that it was made in.
    """
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    try:
        model.eval()
    except NotImplementedError:  # torch.export's modules refuse, and leave the mode of those after them
        for module, _ in modes:
            module.training = False
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def image_format(model: nn.Module) -> torch.memory_format:
    """How a model's images [B, 3, H, W] are stored: channels last if one of its weights is, else contiguous.

    A network with contiguous weights may use `view`, which fails where channels are last.
    """
    is_last = any(
        weight.ndim == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)
        for weight in model.parameters()
    )
    return torch.channels_last if is_last else torch.contiguous_format


def _torch_seed(seed: int) -> int:
    """The seed below 2^32, else 32 bits mixed from all of it: PyTorch takes only the low 32 bits on the CPU."""
    return seed if seed < 2**32 else int(np.random.SeedSequence(seed).generate_state(1)[0])


def _new_network(name: str, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    library, colon, rest = name.partition(":")
    if library + colon in LIBRARIES:
        return resolve(LIBRARIES, library + colon, "model.name")(rest, num_classes, image_size)
    also = f", or {'NAME or '.join(LIBRARIES)}NAME for any network of torchvision or timm"
    network = resolve(MODELS, name, "model.name", also)(num_classes)
    if is_own(MODELS, name):
        _check_logits(name, network, num_classes, image_size)
    return network


def _check_logits(name: str, network: nn.Module, num_classes: int, image_size: tuple[int, int]) -> None:
    """Raise InputError if a network of the user's own gives something else than logits for two black images.

    One that cannot take them here is left to its first step: it may need another device.
    """
    like = next(network.parameters(), torch.zeros(()))
    images = torch.zeros(2, 3, *image_size, dtype=like.dtype, device=like.device)
    with evaluation_mode(network), torch.no_grad():
        try:
            logits = network(images)
        except Exception:  # of any type: the code is the user's
            return
    is_tensor = isinstance(logits, Tensor)
    if not (is_tensor and logits.shape == (2, num_classes) and logits.is_floating_point()):
        got = form(logits) if is_tensor else f"a {type(logits).__name__}"
        raise InputError(
            f"model.name: {name} gave {got} for 2 images; expected float [2, {num_classes}], a logit for each class."
        )

"""Any classifier of torchvision, by its name."""

import difflib
from typing import Any

from torch import nn
from torchvision import models
from torchvision.ops import StochasticDepth

from fastmagn.errors import InputError
from fastmagn.models.adapting import UNSUITABLE, try_one_image, turn_off_dropout, unsuitable

PREFIX = "torchvision:"


def torchvision_network(name: str, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """torchvision's network `name`, new weights, for images of `image_size`, without dropout or stochastic depth.

    Those two draw from a generator with a state, and a resumed run would not repeat them. GoogLeNet and Inception-V3
    come without their auxiliary heads.

    Args:
        name: A name of `torchvision.models.list_models(torchvision.models)`.
        num_classes: K, outputs of the network.
        image_size: (H, W) of the images, px; networks of one fixed size (such as vision transformers) are made for it.

    Raises:
        InputError: torchvision has no such classifier; it cannot take images of that size.
    """
    known = models.list_models(module=models)
    if name not in known:
        nearest = [PREFIX + near for near in difflib.get_close_matches(name, known, n=3)]
        hint = f" Did you mean {', '.join(nearest)}?" if nearest else ""
        raise InputError(
            f"model.name: got {PREFIX + name!r}; expected a name of torchvision.models.list_models(torchvision.models)."
            f"{hint}"
        )
    height, width = image_size
    try:
        network = models.get_model(name, weights=None, num_classes=num_classes, **_options(name, image_size))
        logits = try_one_image(network, height, width)
    except UNSUITABLE as error:
        raise unsuitable(PREFIX + name, image_size, error) from error
    assert logits.shape == (1, num_classes)
    turn_off_dropout(network)
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0
    return network


def _options(name: str, image_size: tuple[int, int]) -> dict[str, Any]:
    """What some networks need beside the number of classes."""
    kind = {"googlenet": models.GoogLeNet, "inception_v3": models.Inception3}.get(name)
    if kind is not None:
        return {"aux_logits": False, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": image_size[0]}
    if name.startswith("maxvit"):
        return {"input_size": image_size}
    return {}

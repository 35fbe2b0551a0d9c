"""Any classifier of torchvision, by its name."""

from typing import Any

from torch import nn
from torchvision import models
from torchvision.ops import StochasticDepth

from fastmagn.errors import InputError, nearest
from fastmagn.models.adapting import SIZE_ERRORS, size_fault, try_one_image, turn_off_dropout

PREFIX = "torchvision:"


def torchvision_network(name: str, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """torchvision's network `name` with new weights, for images of `image_size`, without dropout and stochastic depth.

    These two draw from a generator with a state, and a resumed run would not repeat them. GoogLeNet and Inception-V3
    come without their auxiliary heads, and without `transform_input`: a file does not say whether its
    weights need it.

    Args:
        name: A name of `torchvision.models.list_models(torchvision.models)`.
        num_classes: K, the number of outputs.
        image_size: (H, W) of the images, px; networks of one fixed size (such as vision transformers) are built for it.

    Raises:
        InputError: torchvision has no such classifier, or it cannot take images of that size.
    """
    known = models.list_models(module=models)
    if name not in known:
        hint = nearest(name, known, how_many=3, prefix=PREFIX)
        raise InputError(
            f"model.name: got {PREFIX + name!r}; expected a name of torchvision.models.list_models(torchvision.models)."
            f"{hint}"
        )
    height, width = image_size
    try:
        network = models.get_model(name, weights=None, num_classes=num_classes, **_options(name, image_size))
        logits = try_one_image(network, height, width)
    except SIZE_ERRORS as error:
        raise size_fault(PREFIX + name, image_size, error) from error
    assert logits.shape == (1, num_classes)
    turn_off_dropout(network)
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.p = 0.0
    return network


def _options(name: str, image_size: tuple[int, int]) -> dict[str, Any]:
    """The arguments that some networks need beside the number of classes."""
    kind = {"googlenet": models.GoogLeNet, "inception_v3": models.Inception3}.get(name)
    if kind is not None:
        return {"aux_logits": False, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": image_size[0]}
    if name.startswith("maxvit"):
        return {"input_size": image_size}
    return {}

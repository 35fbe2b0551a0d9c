"""Any network of timm, by its name."""

import difflib

from torch import nn

from fastmagn.errors import InputError
from fastmagn.models.adapting import UNSUITABLE, try_one_image, turn_off_dropout, unsuitable

PREFIX = "timm:"


def timm_network(name: str, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """timm's network `name`, new weights, for images of `image_size`, without dropout or stochastic depth.

    Those two draw from a generator with a state, and a resumed run would not repeat them.

    Args:
        name: A name of `timm.list_models()`, without the tag of pretrained weights.
        num_classes: K, outputs of the network.
        image_size: (H, W) of the images, px; networks of one fixed size (such as vision transformers) are made for it.

    Raises:
        InputError: timm is not installed; it has no such network; the network cannot take images of that size.
    """
    try:
        import timm
    except ImportError:
        raise InputError(
            f"model.name: got {PREFIX + name!r}, but timm is not installed; expected the package timm. "
            'Run `pip install "fastmagn[timm]"`, or name a network that needs none.'
        ) from None
    known = timm.list_models()
    if name not in known:
        nearest = [PREFIX + near for near in difflib.get_close_matches(name.partition(".")[0], known, n=3)]
        hint = f" Did you mean {', '.join(nearest)}?" if nearest else ""
        raise InputError(
            f"model.name: got {PREFIX + name!r}; expected a name of timm.list_models(), without a tag of weights.{hint}"
        )
    fixed = timm.get_pretrained_cfg(name, allow_unregistered=True).fixed_input_size
    height, width = image_size
    try:
        network = timm.create_model(name, num_classes=num_classes, **({"img_size": image_size} if fixed else {}))
        logits = try_one_image(network, height, width)
    except UNSUITABLE as error:
        raise unsuitable(PREFIX + name, image_size, error) from error
    assert logits.shape == (1, num_classes)
    turn_off_dropout(network)
    return network

"""Any network of timm, by its name."""

from torch import nn

from fastmagn.errors import InputError, nearest, without
from fastmagn.models.adapting import SIZE_ERRORS, size_fault, try_one_image, turn_off_dropout

PREFIX = "timm:"


def timm_network(name: str, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """timm's network `name` with new weights, for images of `image_size`, without dropout and stochastic depth.

    These two draw from a generator with a state, and a resumed run would not repeat them.

    Args:
        name: A name of `timm.list_models()`, without the tag of pretrained weights.
        num_classes: K, the number of outputs.
        image_size: (H, W) of the images, px; networks of one fixed size (such as vision transformers) are built for it.

    Raises:
        InputError: timm is not installed, it has no such network, or the network cannot take images of that size.
    """
    try:
        import timm
    except ImportError as error:
        needs = (
            f"model.name: got {PREFIX + name!r}, but timm is not installed; expected the package timm. "
            'Run `pip install "fastmagn[timm]"`, or name a network that needs none.'
        )
        raise without("timm", error, needs) from error
    known = timm.list_models()
    if name not in known:
        hint = nearest(name.partition(".")[0], known, how_many=3, prefix=PREFIX)
        raise InputError(
            f"model.name: got {PREFIX + name!r}; expected a name of timm.list_models(), without a tag of weights.{hint}"
        )
    fixed = timm.get_pretrained_cfg(name, allow_unregistered=True).fixed_input_size
    height, width = image_size
    try:
        network = timm.create_model(name, num_classes=num_classes, **({"img_size": image_size} if fixed else {}))
        logits = try_one_image(network, height, width)
    except SIZE_ERRORS as error:
        raise size_fault(PREFIX + name, image_size, error) from error
    assert logits.shape == (1, num_classes)
    turn_off_dropout(network)
    return network

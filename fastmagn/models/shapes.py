"""Compares weights with a network by names and shapes, before any memory is taken for the network."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fastmagn.models.building import build_model

_MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


class _OnlyWeights(TorchFunctionMode):
    """Puts new weights on the meta device, but not the small tensors from which some networks compute their widths."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _MAKERS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def fits(weights: Mapping[str, Any], name: str, **options: Any) -> bool:
    """Whether weights have the names and shapes of the model `name`; True if only building it can tell.

    A small file may name a network of gigabytes. The network is made on PyTorch's meta device, where tensors have
    shapes and no memory.

    Args:
        weights: Tensors by name, as in the state_dict of a `Normalised` network.
        name: As in `build_model`.
        options: As in `build_model`: `num_classes`, `image_size`, `weight_names`.
    """
    given = {key: getattr(value, "shape", None) for key, value in weights.items()}
    for place in (torch.device("meta"), _OnlyWeights()):
        with suppress(Exception), place:  # a builder of anyone may fail in any way without values
            model = build_model(name, mean=(0.0,) * 3, std=(1.0,) * 3, **options)
            return given == {key: value.shape for key, value in model.state_dict().items()}
    return True

"""Anyone's model as a function from images to logits. Shape letters: B batch, K classes, H W image."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.data.image_set import Images
from fastmagn.errors import InputError, check, counted, one_line
from fastmagn.evaluation.measure import predict
from fastmagn.models import evaluation_mode

_NUM_PROBED = 2  # images that a model is tried on before it is measured


class LogitsOf(nn.Module):
    """A model whose images pass through a function first, and whose output is reduced to its logits.

    Args:
        model: Takes what `preprocess` returns.
        preprocess: Takes float32 images [B, 3, H, W] in [0, 1]; None gives these to the model.
        dtype: What the model is given, if that is a float tensor.
    """

    def __init__(
        self, model: Callable[[Any], Any], preprocess: Callable[[Tensor], Any] | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.model, self.preprocess, self.dtype = model, preprocess, dtype

    def forward(self, images: Tensor) -> Tensor:
        inputs = images if self.preprocess is None else self.preprocess(images)
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            inputs = inputs.to(self.dtype)
        return find_logits(self.model(inputs), len(images))


def find_logits(output: Any, num_images: int) -> Tensor:
    """The logits [B, K] in a model's output.

    They are the output itself; or its `logits`, as a key or an attribute; or, of a tuple or a list, its first tensor of
    two dimensions or more. Dimensions of 1 after the second are dropped: [B, K, 1, 1] is [B, K].

    Raises:
        InputError: There are none, or their shape is another one.
    """
    wanted = "logits [B, K], or a dictionary or an object with `logits`, or a tuple that holds them"
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
        check(found is not None, "model", f"a {type(output).__name__} of {list(map(str, output))[:5]}", wanted)
    elif not isinstance(output, Tensor):
        found = getattr(output, "logits", None)
    if found is None and isinstance(output, list | tuple):
        found = next((part for part in output if isinstance(part, Tensor) and part.ndim >= 2), None)
        check(found is not None, "model", f"a {type(output).__name__} without such a tensor", wanted)
    if not isinstance(found, Tensor):
        raise InputError(f"model: got a {type(output).__name__} from it; expected {wanted}.")
    shape = list(found.shape)
    if found.ndim > 2 and all(side == 1 for side in shape[2:]):
        found = found.flatten(1)
    if found.shape == (num_images,) or found.shape == (num_images, 1):
        raise InputError(
            f"model: got outputs {shape}; expected logits [{num_images}, K] of K classes, 2 or more. If z is one logit,"
            " that of class 1, give a function that returns torch.stack([0 * z, z], dim=1), z of shape [B]."
        )
    is_logits = found.ndim == 2 and len(found) == num_images and found.shape[1] > 0 and found.is_floating_point()
    if not is_logits:
        got = f"{str(found.dtype).removeprefix('torch.')} {shape}"
        raise InputError(f"model: got outputs {got} for {num_images} images; expected float logits [{num_images}, K].")
    return found


def place(model: Callable[[Any], Any], device: str | torch.device | None) -> tuple[torch.device, torch.dtype]:
    """Where a model is measured, after it is moved there, and the dtype of its parameters.

    Args:
        model: A module, or any function; a function is not moved.
        device: None leaves a module where its parameters are; for a model without any it means the CPU.

    Raises:
        InputError: The model cannot be called, or the device does not exist.
    """
    check(callable(model), "model", f"a {type(model).__name__}", "a PyTorch module or another function of images")
    chosen = None if device is None else _existing(device)
    if not isinstance(model, nn.Module):
        return chosen or torch.device("cpu"), torch.float32
    if chosen is not None:
        model.to(chosen)
    tensors = list(chain(model.parameters(), model.buffers()))
    here = tensors[0].device if tensors else chosen or torch.device("cpu")
    check(
        here.type != "meta", "model", "parameters without values, on meta", "them on a device; model.to_empty allocates"
    )
    floats = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
    return here, next(floats, torch.float32)


def _existing(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
        has_device = chosen.type != "cuda" or torch.cuda.is_available()
        check(has_device, "device", str(device), "cpu, as PyTorch finds no CUDA device here")
        torch.empty(0, device=chosen).cpu()  # "meta" has no values to copy
    except InputError:
        raise
    except Exception as error:  # of many types: the device does not exist, or PyTorch was built without it
        raise InputError(
            f"device: got {str(device)!r}; expected a device of this machine ({one_line(error)})."
        ) from error
    return chosen


def probe(model: LogitsOf, images_u8: Images, labels: np.ndarray, device: torch.device) -> None:
    """Try a model on its first images, so that an output that cannot be measured is found before a whole pass.

    Args:
        model: On `device`.
        images_u8: uint8 [N, H, W, 3].
        labels: int64 [N], 0 or more.
        device: Where the model is.

    Raises:
        InputError: The output has no logits, or fewer than the labels need.
    """
    num_classes = _first_logits(model, images_u8, device).shape[1]
    expected = f"classes 0..{num_classes - 1}, as the model returns {counted(num_classes, 'logit')}"
    check(labels.max() < num_classes, "labels", int(labels.max()), expected)


def probe_others(model: LogitsOf, others_u8: Images, images_u8: Images, device: torch.device, field: str) -> None:
    """Try a model that takes `images_u8` on the first of other images, before a whole pass over either.

    Args:
        model: On `device`.
        others_u8: uint8 [n, h, w, 3].
        images_u8: uint8 [N, H, W, 3].
        device: Where the model is.
        field: What messages call the other images.

    Raises:
        InputError: The model fails on them, or its output has no logits.
    """
    try:
        _first_logits(model, others_u8, device)
    except Exception as error:  # whatever the user's model raises
        sizes = (" x ".join(map(str, images.shape[1:3])) for images in (others_u8, images_u8))
        got, taken = (f"images of {size} px" for size in sizes)
        raise InputError(
            f"{field}: got {got}, which the model cannot measure ({type(error).__name__}: {one_line(error)}); expected"
            f" some that it can, as it can {taken}. Resize them first."
        ) from error


def _first_logits(model: LogitsOf, images_u8: Images, device: torch.device) -> Tensor:
    with evaluation_mode(model):
        return predict(model, images_u8[:_NUM_PROBED], device=device, amp="float32", batch_size=_NUM_PROBED)

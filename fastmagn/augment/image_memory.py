"""The memory that images [B, C, H, W] are in, and that of what becomes of them."""

from typing import Any

import torch
from torch import Tensor

from fastmagn.augment.engines import host_memory
from fastmagn.errors import InputError, check, form


def is_planar(images: Tensor) -> bool:
    """Whether images are in the order of planes in memory (contiguous), or in none that the kernels know."""
    return images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last)


def in_order(images: Tensor, planar: bool) -> Tensor:
    """The images in the order of planes or of pixels in memory; a copy only if they are not."""
    return images.contiguous(memory_format=torch.contiguous_format if planar else torch.channels_last)


def empty_like(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised memory for as many images of `dtype`, on the same device, in the same memory format."""
    planar, (batch, channels, height, width) = is_planar(images), images.shape
    shape = (batch, channels, height, width) if planar else (batch, height, width, channels)
    if dtype == torch.float32 and images.device.type == "cpu":
        made = host_memory.empty(shape)
    else:
        made = torch.empty(shape, dtype=dtype, device=images.device)
    return made if planar else made.permute(0, 3, 1, 2)


def check_out(out: Any, images: Tensor) -> None:
    """Raise InputError unless `out` can be filled with what becomes of `images`, [B, C, H, W] or [C, H, W]."""
    check(isinstance(out, Tensor), "out", f"a {type(out).__name__}", "a tensor, or None")
    same = (out.shape, out.dtype, out.device) == (images.shape, images.dtype, images.device)
    if not same:
        expected = f"{form(images)} on {images.device}, as the images are"
        raise InputError(f"out: got {form(out)} on {out.device}; expected {expected}.")
    if out.requires_grad and out.is_leaf and torch.is_grad_enabled():
        raise InputError("out: got a leaf that requires gradients; expected memory without, such as out.detach().")
    batch = out if out.ndim == 4 else out[None]
    is_dense = batch.is_contiguous() or batch.is_contiguous(memory_format=torch.channels_last)
    if not is_dense:
        raise InputError(f"out: got the strides {list(out.stride())}; expected a contiguous or channels-last tensor.")
    (first, last), (images_first, images_last) = _addresses(out), _addresses(images)
    if first < images_last and images_first < last:
        raise InputError(
            "out: got memory that the images are in; expected memory of its own, such as torch.empty_like(images)."
        )


def _addresses(tensor: Tensor) -> tuple[int, int]:
    """The tensor's first byte, and the one after its last."""
    if not tensor.numel():
        return tensor.data_ptr(), tensor.data_ptr()
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (steps + 1) * tensor.element_size()

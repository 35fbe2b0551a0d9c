"""The forms in which images reach AugMix and policies in others' code: tensors, tv_tensors, PIL images."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastmagn.errors import InputError, check, form

FORMS = "uint8 or float [B, 3, H, W], [B, 1, H, W], [3, H, W] or [1, H, W]"
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def to_tensor(images: Any, name: str = "augmix") -> tuple[Tensor, Callable[[Tensor], Any]]:
    """The images as a plain tensor, and the function that gives a result the form they came in.

    Args:
        images: A tensor in one of FORMS (plain, or torchvision's Image or Video), or a PIL image of mode RGB or L.
        name: What the caller is called in examples.

    Raises:
        InputError: They have another form.
    """
    if isinstance(images, Image.Image):
        check(images.mode in ("RGB", "L"), "images", f"a PIL image of mode {images.mode}", "RGB or L (image.convert)")
        check(min(images.size) >= 1, "images", f"a PIL image of {images.width}x{images.height} px", "1 px or more")
        pixels = np.array(images).reshape(images.height, images.width, -1)
        return torch.from_numpy(pixels).permute(2, 0, 1), _to_pil
    if not isinstance(images, Tensor):
        hint = ""
        if isinstance(images, np.ndarray):
            hint = " torch.from_numpy makes a tensor of an array."
        elif isinstance(images, tuple | list):
            hint = f" Labels are further arguments: {name}(images, labels)."
        elif isinstance(images, Mapping):
            hint = f" Give its images alone, such as {name}(sample['image'])."
        raise InputError(f"images: got a {type(images).__name__}; expected a tensor, {FORMS}, or a PIL image.{hint}")
    back = _keep if type(images) is Tensor else _back_to(images)
    images = images.as_subclass(Tensor)
    is_images = images.ndim in (3, 4) and images.shape[-3] in (1, 3) and min(images.shape[-2:]) >= 1
    if not (is_images and images.dtype in (torch.uint8, *_FLOATS)):
        last = images.ndim in (3, 4) and images.shape[-1] in (1, 3)
        order = (2, 0, 1) if images.ndim == 3 else (0, 3, 1, 2)
        hint = f" Channels come before height and width: permute{order}." if last and not is_images else ""
        raise InputError(f"images: got {form(images)}; expected {FORMS}.{hint}")
    return images, back


def is_video(images: Any) -> bool:
    """Whether they are the frames of one video, torchvision's Video."""
    if type(images) is Tensor or not isinstance(images, Tensor):
        return False
    from torchvision import tv_tensors

    return isinstance(images, tv_tensors.Video)


def _keep(changed: Tensor) -> Tensor:
    return changed


def _to_pil(changed: Tensor) -> Image.Image:
    return Image.fromarray(changed.permute(1, 2, 0).squeeze(2).contiguous().numpy())


def _back_to(images: Tensor) -> Callable[[Tensor], Tensor]:
    """What makes a result a tv_tensor like `images`; results stay plain tensors if it is another kind of tensor."""
    from torchvision import tv_tensors  # slow to import; whoever passes one has done it

    if not isinstance(images, tv_tensors.TVTensor):
        return _keep
    is_images = isinstance(images, tv_tensors.Image | tv_tensors.Video)
    check(is_images, "images", f"a tv_tensor {type(images).__name__}", "Image or Video")
    return lambda changed: tv_tensors.wrap(changed, like=images)


def refuse_places(others: Any, moves: str) -> None:
    """Raise InputError if a tv_tensor that marks places in an image is among `others` or in a container there.

    `moves` says why, as the end of the message.
    """
    if isinstance(others, Mapping):
        others = tuple(others.values())
    if isinstance(others, list | tuple):
        for other in others:
            refuse_places(other, moves)
    elif isinstance(others, Tensor) and type(others) is not Tensor:
        from torchvision import tv_tensors

        is_place = isinstance(others, tv_tensors.TVTensor) and not isinstance(
            others, tv_tensors.Image | tv_tensors.Video
        )
        check(not is_place, "others", f"a tv_tensor {type(others).__name__}", f"labels and the like: {moves}")

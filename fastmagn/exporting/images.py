"""Turns arrays, tensors, Pillow images and image files into batches for a model.

Shape letters: B batch, H W image.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastmagn.augment.pixel_range import TOLERANCE
from fastmagn.data.files.decoding import central_square, open_upright_rgb, upright_rgb
from fastmagn.data.padding import pad_by_edges
from fastmagn.errors import InputError, form, one_line
from fastmagn.exporting.info import ModelInfo

_Picture = str | Path | Image.Image


def as_sequence(images: Any) -> Any:
    """Images that can be cut into batches: an array, a tensor, or a list of pictures. One picture becomes a list.

    Raises:
        InputError: They are none of these.
    """
    if isinstance(images, _Picture):
        return [images]
    if isinstance(images, np.ndarray | torch.Tensor):
        if images.ndim != 4:
            hint = " For a single image, give images[None]." if images.ndim == 3 else ""
            raise InputError(f"images: got {form(images)}; expected a batch, [B, H, W, 3] or [B, 3, H, W].{hint}")
        return images
    if isinstance(images, list | tuple) and all(isinstance(image, _Picture) for image in images):
        return images
    kind = type(images).__name__
    if isinstance(images, list | tuple):
        kind += " of " + next(type(image).__name__ for image in images if not isinstance(image, _Picture))
    raise InputError(
        f"images: got a {kind}; expected an array or tensor [B, H, W, 3], or a list of files or Pillow images."
    )


def as_batch(images: Any, info: ModelInfo, resizes: bool) -> np.ndarray:
    """A slice of what `as_sequence` returned, as uint8 [B, H, W, 3], or float32 [B, 3, H, W] in [0, 1].

    Args:
        images: Arrays and tensors are uint8 or float, in either layout. Pictures are converted to RGB and turned
            upright by their EXIF orientation.
        info: The model's; its image_size, resize_px and padded_from are used. Images of the size padded_from are padded
            as the run's were.
        resizes: Resize a picture's shorter side to resize_px and cut out its central square, as for the run's test
            images; with padded_from, cut it to that size and pad it. Without it, a picture of another size is an error.

    Raises:
        InputError: The images have another size, dtype or range; a file cannot be read as an image.
    """
    if not isinstance(images, np.ndarray | torch.Tensor):
        return np.stack([_pixels(image, info, resizes) for image in images])
    if isinstance(images, torch.Tensor):
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()
    images = _padded(images, info)
    height, width = info.image_size
    is_channels_last = images.shape[1:] == (height, width, 3)
    if not is_channels_last and images.shape[1:] != (3, height, width):
        raise InputError(
            f"images: got {form(images)}; expected [B, {height}, {width}, 3] or [B, 3, {height}, {width}], the size "
            f"that the model was trained on{_also(info)}. Resize them first."
        )
    if images.dtype == np.uint8:
        return images if is_channels_last else images.transpose(0, 2, 3, 1)
    if images.dtype.kind != "f":
        raise InputError(f"images: got {form(images)}; expected uint8 (levels 0..255), or floats in [0, 1].")
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if not -TOLERANCE <= low <= high <= 1 + TOLERANCE:
        raise InputError(f"images: got floats in {low:g}..{high:g}; expected [0, 1]: the model normalises them itself.")
    return (images.transpose(0, 3, 1, 2) if is_channels_last else images).astype(np.float32).clip(0, 1)


def _padded(images: np.ndarray, info: ModelInfo) -> np.ndarray:
    """Images of the size that the run's had before their padding, padded, [B, H, W, 3]; others as they are."""
    if info.padded_from is None:
        return images
    if images.shape[1:] == (3, *info.padded_from):
        images = images.transpose(0, 2, 3, 1)
    is_own = images.shape[1:] == (*info.padded_from, 3)
    return pad_by_edges(images, info.image_size[0]) if is_own else images


def _also(info: ModelInfo) -> str:
    """The other size that is taken, in words."""
    if info.padded_from is None:
        return ""
    height, width = info.padded_from
    return f", or {width} x {height} px, which are padded as in the training"


def _pixels(picture: _Picture, info: ModelInfo, resizes: bool) -> np.ndarray:
    """A picture as uint8 [H, W, 3]."""
    name = f"image {picture}" if isinstance(picture, str | Path) else "image"
    try:
        image = upright_rgb(picture) if isinstance(picture, Image.Image) else open_upright_rgb(picture)
        is_own = info.padded_from is not None and image.size == info.padded_from[::-1]
        if resizes or is_own:
            return central_square(image, info.image_size[0], info.resize_px, info.padded_from)
    except Exception as error:  # decoders raise errors of many types
        raise InputError(f"{name}: cannot be read as an image ({type(error).__name__}: {one_line(error)}).") from error
    height, width = info.image_size
    if image.size != (width, height):
        raise InputError(
            f"{name}: got {image.width} x {image.height} px; expected {width} x {height}, as the model was trained on"
            f"{_also(info)}. With resize=True its shorter side is resized and its centre is cut out."
        )
    return np.asarray(image)

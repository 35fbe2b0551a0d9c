"""A user's `torch.utils.data.Dataset` of (image, label) as the images and labels that an evaluation measures.

Shape letters: N items, C channels, H W image.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from fastmagn.errors import InputError, check, form, is_integer, one_line
from fastmagn.evaluation.cells import KEPT_BYTES

_ITEM = "(image, label), or an image alone if the labels are given"
_IMAGE = "a Pillow image, uint8 [H, W, 3], a uint8 tensor [3, H, W], or floats in [0, 1] of these shapes; or grey ones"


class DatasetImages:
    """Images of a Dataset in place of an array uint8 [n, H, W, 3]; `np.asarray` reads the items, one after another.

    Args:
        dataset: It yields the same image whenever an item is read.
        rows: int64 [n].
        size: (H, W), px.
        field: What messages call it.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, dataset: Dataset, rows: np.ndarray, size: tuple[int, int], field: str) -> None:
        self.dataset, self.rows, self.field = dataset, rows, field
        self.shape = (len(rows), *size, 3)
        self.nbytes = int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | np.ndarray) -> "DatasetImages":
        return DatasetImages(self.dataset, self.rows[rows], self.shape[1:3], self.field)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        images_u8 = np.empty(self.shape, np.uint8)
        for out, row in zip(images_u8, self.rows.tolist(), strict=True):
            out[:] = _image_of(self.dataset, row, self.field, self.shape[1:3])[0]
        return images_u8 if dtype is None else images_u8.astype(dtype, copy=False)


def read_dataset(dataset: Dataset, field: str) -> tuple[np.ndarray | DatasetImages, list[int] | None]:
    """A Dataset's images and labels, N of each. Every item is read once here, so that none fails in the middle.

    Up to 1 GiB of images stay in memory; beyond it they are read again for each corruption, a few at a time.

    Args:
        dataset: It has a length, and yields (image, label) or images alone for 0..N-1.
        field: What messages call it.

    Returns:
        uint8 [N, H, W, 3], and the labels; None if no item has one.

    Raises:
        InputError: It has no length or no items; an item cannot be read, is not such a pair, or has another size.
    """
    try:
        total = -1 if isinstance(dataset, IterableDataset) else len(dataset)
    except TypeError:
        total = -1
    wanted = "one with a length, whose items dataset[i] gives; list(dataset) makes one of an iterable"
    check(total >= 0, field, f"a {type(dataset).__name__}", wanted)
    check(total > 0, field, "no images", "at least one")
    first, label = _image_of(dataset, 0, field, None)
    size, has_labels = first.shape[:2], label is not None
    is_kept = total * first.nbytes <= KEPT_BYTES
    images_u8 = np.empty((total if is_kept else 0, *first.shape), np.uint8)
    labels = []
    for row in range(total):
        image, label = _image_of(dataset, row, field, size)
        check((label is not None) == has_labels, f"{field}[{row}]", "an item of another form", _ITEM)
        labels.append(label)
        if is_kept:
            images_u8[row] = image
    images = images_u8 if is_kept else DatasetImages(dataset, np.arange(total), size, field)
    return images, labels if has_labels else None


def _image_of(dataset: Dataset, row: int, field: str, size: tuple[int, int] | None) -> tuple[np.ndarray, int | None]:
    """An item's image, uint8 [H, W, 3], and its label; None if the item is an image alone."""
    where = f"{field}[{row}]"
    try:
        item = dataset[row]
    except Exception as error:  # whatever the user's code raises
        raise InputError(f"{where}: cannot be read ({type(error).__name__}: {one_line(error)}).") from error
    label = None
    if isinstance(item, tuple | list):
        check(len(item) == 2, where, f"a {type(item).__name__} of {len(item)}", _ITEM)
        item, label = item[0], _label(item[1], where)
    image = _pixels(item, where)
    height, width = image.shape[:2]
    if size is not None and (height, width) != tuple(size):
        raise InputError(
            f"{where}: got {height}x{width} px; expected {size[0]}x{size[1]} px, as in {field}[0]. Resize the images in"
            " the dataset's transform."
        )
    return image, label


def _label(label: Any, where: str) -> int:
    if isinstance(label, Tensor | np.ndarray) and label.ndim > 0 and len(label.reshape(-1)) == 1:
        label = label.reshape(())
    check(is_integer(label), where, f"the label {label!r}"[:100], "an integer, 0..K-1")
    return int(label)


def _pixels(image: Any, where: str) -> np.ndarray:
    """An image as uint8 [H, W, 3]."""
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":  # more than 8 bits, which convert would clip
            raise InputError(f"{where}: got a Pillow image of mode {image.mode}; expected 8 bits, such as RGB or L.")
        return np.asarray(image.convert("RGB"))
    is_tensor = isinstance(image, Tensor)
    array = image.detach().cpu().numpy() if is_tensor and image.dtype != torch.bfloat16 else image
    if not isinstance(array, np.ndarray):
        raise InputError(f"{where}: got a {type(image).__name__}; expected {_IMAGE}.")
    channels_first = array.ndim == 3 and array.shape[0] in (1, 3)
    channels_last = array.ndim == 3 and array.shape[2] in (1, 3)
    if channels_first and (is_tensor or not channels_last):
        array = np.moveaxis(array, 0, 2)
    elif array.ndim == 2:
        array = array[:, :, None]
    elif not channels_last:
        raise InputError(f"{where}: got {form(array)}; expected {_IMAGE}.")
    if array.dtype.kind == "f":
        array = _bytes_of(array, where)
    if array.dtype != np.uint8:
        raise InputError(f"{where}: got {form(array)}; expected {_IMAGE}.")
    return np.broadcast_to(array, (*array.shape[:2], 3))


def _bytes_of(floats: np.ndarray, where: str) -> np.ndarray:
    """Floats in [0, 1] as uint8, the nearest of the 256 levels."""
    if not ((floats >= 0) & (floats <= 1)).all():
        raise InputError(
            f"{where}: got floats in {floats.min():g}..{floats.max():g}; expected 0..1. Leave the normalisation out of"
            " the dataset's transform, and give it as `preprocess`."
        )
    return np.rint(floats.astype(np.float64) * 255).astype(np.uint8)

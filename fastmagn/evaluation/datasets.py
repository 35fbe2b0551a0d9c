"""A user's dataset of (image, label) as the images and labels that an evaluation measures.

Shape letters: N items, C channels, H W image.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fastmagn.augment.pixel_range import TOLERANCE
from fastmagn.errors import InputError, check, form, is_integer, one_line, some
from fastmagn.evaluation.cells import KEPT_BYTES

_ITEM = "(image, label), or an image alone if the labels are given"
# What Hugging Face `datasets` and WebDataset call them.
_IMAGE_KEYS = ("image", "img", "pixel_values", "jpg", "jpeg", "png", "webp")
LABEL_KEYS = ("label", "labels", "cls")
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
            item = _read(self.dataset, row, self.field)
            out[:] = _image_of(item, f"{self.field}[{row}]", self.shape[1:3], self.field)[0]
        return images_u8 if dtype is None else images_u8.astype(dtype, copy=False)


def is_dataset(images: object) -> bool:
    """Whether this yields images one by one.

    That is a Dataset of PyTorch; what works like one, such as those of Hugging Face `datasets`; another iterable, such
    as a generator; or a list of (image, label), of [image, label] or of dictionaries. Arrays and lists of images are
    not.
    """
    if isinstance(images, Dataset):
        return True
    if isinstance(images, list | tuple):
        return len(images) > 0 and (isinstance(images[0], tuple | Mapping) or _is_list_of_both(images[0]))
    is_other = isinstance(images, str | bytes | Mapping) or hasattr(images, "__array__")
    return not is_other and (hasattr(images, "__iter__") or hasattr(images, "__getitem__"))


def _is_list_of_both(item: object) -> bool:
    """Whether it is [image, label]; a list of two images is not."""
    if not isinstance(item, list) or len(item) != 2:
        return False
    return isinstance(item[0], np.ndarray | Tensor | Image.Image) and is_integer(item[1])


def read_dataset(
    dataset: Any, field: str, labels_field: str | None = None
) -> tuple[np.ndarray | DatasetImages, list[int] | None]:
    """A dataset's images and labels, N of each. Every item is read once here, so that none fails in the middle.

    Up to 1 GiB of images stay in memory. Beyond it they are read again for each corruption, a few at a time, which
    takes a dataset whose items dataset[i] gives.

    Args:
        dataset: What `is_dataset` takes. It yields (image, label), dictionaries of both, or images alone.
        field: What messages call it.
        labels_field: What messages call the labels, if they must be in the items; None: an item may lack one.

    Returns:
        uint8 [N, H, W, 3], and the labels; None if no item has one.

    Raises:
        InputError: It has neither a length nor an end, or no items; an item cannot be read, is not such a pair, or has
            another size.
    """
    if isinstance(dataset, DataLoader):
        raise InputError(f"{field}: got a DataLoader, which yields batches; expected its dataset: loader.dataset.")
    total = None if _is_stream(dataset) else _length(dataset, field)
    items = _stream(dataset, field) if total is None else (_read(dataset, row, field) for row in range(total))
    first = next(items, None)
    check(first is not None, field, "no images", "at least one")
    if labels_field is not None and isinstance(first, Mapping):
        _check_label_key(first, f"{field}[0]", labels_field)
    image, label = _image_of(first, f"{field}[0]", None, field)
    size, has_labels, most = image.shape[:2], label is not None, max(1, KEPT_BYTES // image.nbytes)
    is_kept = total is None or total <= most
    images_u8 = np.empty((min(most, total or most) if is_kept else 0, *image.shape), np.uint8)
    labels: list[Any] = []
    for row, item in enumerate(chain([first], items)):
        image, label = _image_of(item, f"{field}[{row}]", size, field)
        check((label is not None) == has_labels, f"{field}[{row}]", "an item of another form", _ITEM)
        if total is None and row == most:
            raise InputError(
                f"{field}: got a {type(dataset).__name__} of more than {most:,} images, which come once; expected up to"
                f" {most:,} ({KEPT_BYTES / 2**30:g} GiB), or a dataset with a length, whose items dataset[i] gives."
            )
        labels.append(label)
        if is_kept:
            images_u8[row] = image
    kept = labels if has_labels else None
    if is_kept:
        return images_u8[: len(labels)], kept
    return DatasetImages(dataset, np.arange(len(labels)), size, field), kept


def _is_stream(dataset: Dataset | Iterable) -> bool:
    """Whether its items only come in turn; dataset[name] of a stream of Hugging Face is a column."""
    has_items = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    return isinstance(dataset, IterableDataset) or (hasattr(dataset, "__iter__") and not has_items)


def _length(dataset: Any, field: str) -> int:
    try:
        return len(dataset)
    except TypeError:
        wanted = "one with a length, whose items dataset[i] gives, or one that can be iterated over"
        raise InputError(f"{field}: got a {type(dataset).__name__} without a length; expected {wanted}.") from None


def _stream(dataset: Iterable, field: str) -> Iterator[Any]:
    row = 0
    try:
        for item in dataset:
            yield item
            row += 1
    except Exception as error:  # whatever the user's code raises
        raise _unreadable(f"{field}[{row}]", error) from error


def _read(dataset: Dataset, row: int, field: str) -> Any:
    try:
        return dataset[row]
    except Exception as error:  # whatever the user's code raises
        raise _unreadable(f"{field}[{row}]", error) from error


def _unreadable(where: str, error: Exception) -> InputError:
    return InputError(f"{where}: cannot be read ({type(error).__name__}: {one_line(error)}).")


def _image_of(item: Any, where: str, size: tuple[int, int] | None, field: str) -> tuple[np.ndarray, int | None]:
    """An item's image, uint8 [H, W, 3], and its label; None if the item is an image alone."""
    label = None
    if isinstance(item, Mapping):
        item = _pair_of(item, where)
    if isinstance(item, tuple | list):
        check(len(item) == 2, where, f"a {type(item).__name__} of {len(item)}", _ITEM)
        item, label = item[0], _label(item[1], where)
    image = image_pixels(item, where)
    height, width = image.shape[:2]
    if size is not None and (height, width) != tuple(size):
        raise InputError(
            f"{where}: got {height}x{width} px; expected {size[0]}x{size[1]} px, as in {field}[0]. Resize the images in"
            " the dataset's transform."
        )
    return image, label


def _pair_of(item: Mapping[str, Any], where: str) -> Any:
    """The image and the label of a dictionary, or the image alone."""
    images, labels = ([key for key in keys if key in item] for keys in (_IMAGE_KEYS, LABEL_KEYS))
    if len(images) != 1 or len(labels) > 1:
        raise InputError(
            f"{where}: got a {type(item).__name__} of {some(map(str, item), 8)}; expected one image ("
            f"{', '.join(_IMAGE_KEYS)}) and one label ({', '.join(LABEL_KEYS)}). Rename them, or yield (image, label)."
        )
    return (item[images[0]], item[labels[0]]) if labels else item[images[0]]


def _check_label_key(item: Mapping[str, Any], where: str, labels_field: str) -> None:
    """Raise InputError if a dictionary with an image has its label, if any, under another name."""
    if any(key in item for key in LABEL_KEYS) or not any(key in item for key in _IMAGE_KEYS):
        return
    name = next((str(key) for key in item if "label" in str(key).lower()), "NAME")
    raise InputError(
        f"{where}: got a {type(item).__name__} of {some(map(str, item), 8)}; expected a label in it"
        f" ({', '.join(LABEL_KEYS)}). Rename one, with Hugging Face dataset.rename_column({name!r}, 'label'), or give"
        f" the labels as {labels_field}."
    )


def _label(label: Any, where: str) -> int:
    if isinstance(label, Tensor | np.ndarray) and label.ndim > 0 and len(label.reshape(-1)) == 1:
        label = label.reshape(())
    check(is_integer(label), where, f"the label {label!r}"[:100], "an integer, 0..K-1")
    return int(label)


def image_pixels(image: Any, where: str) -> np.ndarray:
    """An image as uint8 [H, W, 3].

    Raises:
        InputError: It is none, or its values are out of range.
    """
    if isinstance(image, Image.Image):
        if image.mode[0] in "IF":  # more than 8 bits, which convert would clip
            raise InputError(f"{where}: got a Pillow image of mode {image.mode}; expected 8 bits, such as RGB or L.")
        return np.asarray(image.convert("RGB"))
    is_tensor = isinstance(image, Tensor)
    array = tensor_values(image, where, _IMAGE) if is_tensor else image
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


def tensor_values(tensor: Tensor, where: str, expected: str) -> np.ndarray:
    """The values of a tensor as an array.

    Raises:
        InputError: NumPy has no such dtype, or the tensor is sparse or without values; `where` and `expected` say what
            is wanted.
    """
    try:
        return tensor.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"{where}: got {form(tensor)}, a tensor that NumPy cannot read; expected {expected}."
        ) from error


def _bytes_of(floats: np.ndarray, where: str) -> np.ndarray:
    """Floats in [0, 1], or beyond by half a level, as uint8, the nearest of the 256 levels."""
    if not ((floats >= -TOLERANCE) & (floats <= 1 + TOLERANCE)).all():
        raise InputError(
            f"{where}: got floats in {floats.min():g}..{floats.max():g}; expected 0..1. Leave the normalisation out of"
            " the dataset's transform, and give it as `preprocess`."
        )
    return np.rint(floats.astype(np.float64) * 255).clip(0, 255).astype(np.uint8)

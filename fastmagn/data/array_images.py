"""Images from an array that may be a mapped file: turned into RGB squares when they are read, a few at a time.

Shape letters: N images, H W image, S side of the square.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastmagn.data.image_set import ImageSet
from fastmagn.data.padding import pad_by_edges
from fastmagn.errors import InputError, counted, form
from fastmagn.machine.console import console
from fastmagn.machine.torchrun import rank

MIN_SIDE_PX = 32  # the smallest images that every network takes
_SMALLEST_PX, _LARGEST_PX = 8, 4096
_ROWS_AT_A_TIME_BYTES = 1 << 24
_STATISTICS_BYTES = 1 << 28
IMAGES_LAYOUT = "uint8 [N, H, W] (grey), [N, H, W, 1] or [N, H, W, 3] (RGB), H and W 8..4096"


class ArrayImages:
    """Rows of an array as uint8 [n, S, S, 3], made when `np.asarray` asks for them: the array may be a mapped file.

    Grey is repeated in three channels. S is the longer side, at least 32 px: a smaller image is padded by its edges,
    see `padding.pad_by_edges`. No pixel is interpolated.

    Args:
        stored_u8: uint8 [N, H, W] or [N, H, W, C], C 1 or 3.
        rows: int64 [n], which of them; None means all.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, stored_u8: np.ndarray, rows: np.ndarray | None = None) -> None:
        self.stored_u8, self.rows = stored_u8, rows
        self.size = stored_u8.shape[1:3]
        side = max(MIN_SIDE_PX, *self.size)
        self.shape = (len(self), side, side, 3)

    def __len__(self) -> int:
        return len(self.stored_u8) if self.rows is None else len(self.rows)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def padded_from(self) -> tuple[int, int] | None:
        """(H, W) of the stored images, px, if they are padded."""
        height, width = self.size
        return None if (height, width) == self.shape[1:3] else (height, width)

    @property
    def description(self) -> str:
        """The images in words, such as `grey 28x28 px, padded to 32x32 px by their edges`."""
        height, width = self.size
        is_grey = self.stored_u8.ndim == 3 or self.stored_u8.shape[3] == 1
        side = self.shape[1]
        padded = "" if self.padded_from is None else f", padded to {side}x{side} px by their edges"
        return f"{'grey ' if is_grey else ''}{height}x{width} px{padded}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the stored values of these rows, and over their shapes."""
        digest = hashlib.sha256(repr((self.shape, self.stored_u8.shape[1:])).encode())
        for part in self._stored_parts():
            digest.update(np.ascontiguousarray(part))
        return digest.hexdigest()

    def _stored_parts(self) -> Iterator[np.ndarray]:
        size = max(1, _ROWS_AT_A_TIME_BYTES // self.stored_u8[:1].nbytes)
        for first in range(0, len(self), size):
            part = slice(first, first + size)
            yield self.stored_u8[part] if self.rows is None else self.stored_u8[self.rows[part]]

    def __getitem__(self, rows: slice | np.ndarray) -> "ArrayImages":
        if self.rows is not None:
            return ArrayImages(self.stored_u8, self.rows[rows])
        return ArrayImages(self.stored_u8[rows]) if isinstance(rows, slice) else ArrayImages(self.stored_u8, rows)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        pixels = self.stored_u8 if self.rows is None else self.stored_u8[self.rows]
        pixels = pad_by_edges(pixels.reshape(*pixels.shape[:3], -1), self.shape[1])
        if pixels.shape[3] == 1:
            pixels = np.repeat(pixels, 3, axis=3)
        return np.require(np.asarray(pixels, dtype), requirements="C")


def array_set(
    name: str,
    place: Path,
    *,
    class_names: tuple[str, ...],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    also: str = "",
) -> ImageSet:
    """An image set from arrays. A line says how many images there are and how they become squares of at least 32 px.

    Mean and standard deviation are those of the training images before they are padded; of more than 256 MiB, of as
    many images, evenly spaced.

    Args:
        name: Its registered name.
        place: The file or folder, for messages.
        class_names: K names.
        train: Images, as ArrayImages takes them, and their labels, int64 in 0..K-1.
        test: Likewise.
        also: Ends the line.

    Raises:
        InputError: The sizes of training and test images differ.
    """
    train_images, test_images = ArrayImages(train[0]), ArrayImages(test[0])
    if train_images.size != test_images.size:
        raise InputError(
            f"{place}: got training images of {train_images.description} and test images of {test_images.description};"
            " expected one size."
        )
    if rank() == 0:
        console.print(
            f"{place}: {len(train_images):,} training and {counted(len(test_images), 'test image', ',')} of"
            f" {train_images.description}{also}",
            soft_wrap=True,
        )
    mean, std = channel_statistics(train[0])
    return ImageSet(
        name=name,
        class_names=class_names,
        mean=mean,
        std=std,
        train_images_u8=train_images,
        train_labels=train[1],
        test_images_u8=test_images,
        test_labels=test[1],
    )


def array_test_set(
    name: str, place: Path, *, class_names: tuple[str, ...], test: tuple[np.ndarray, np.ndarray], also: str = ""
) -> ImageSet:
    """The image set of test images alone, without mean and standard deviation; the arguments are `array_set`'s."""
    images = ArrayImages(test[0])
    if rank() == 0:
        count = counted(len(images), "test image", ",")
        console.print(f"{place}: {count} of {images.description}, no training images{also}", soft_wrap=True)
    return ImageSet(
        name=name,
        class_names=class_names,
        mean=None,
        std=None,
        train_images_u8=images[:0],
        train_labels=test[1][:0],
        test_images_u8=images,
        test_labels=test[1],
    )


def channel_statistics(stored_u8: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each channel, pixels in [0, 1]; a deviation below one level counts as one."""
    wanted = max(1, _STATISTICS_BYTES // stored_u8[:1].nbytes)
    rows = None if wanted >= len(stored_u8) else np.linspace(0, len(stored_u8) - 1, wanted).astype(np.int64)
    channels = 1 if stored_u8.ndim == 3 else stored_u8.shape[3]
    counts = np.zeros((channels, 256), np.int64)
    for part in ArrayImages(stored_u8, rows)._stored_parts():
        for channel, values in enumerate(np.moveaxis(part.reshape(*part.shape[:3], channels), 3, 0)):
            counts[channel] += np.bincount(values.ravel(), minlength=256)
    levels, totals = np.arange(256) / 255, counts.sum(axis=1)
    mean = counts @ levels / totals
    std = np.sqrt(np.maximum(counts @ levels**2 / totals - mean**2, 1 / 255**2))
    return _colour(mean), _colour(std)


def _colour(of_channels: np.ndarray) -> tuple[float, float, float]:
    """The numbers of one channel or three, as those of red, green and blue."""
    red, green, blue = np.tile(of_channels, 3 // len(of_channels)).tolist()
    return red, green, blue


def class_labels(values: np.ndarray, where: str, num_images: int, num_classes: int | None = None) -> np.ndarray:
    """Labels as int64 [N], of integers [N] or [N, 1].

    Args:
        values: The labels.
        where: Where they are from, for the message.
        num_images: N.
        num_classes: K: they are 0..K-1. None if it is not known yet.

    Raises:
        InputError: They are something else.
    """
    last = "K-1" if num_classes is None else num_classes - 1
    wanted = f"integers [{num_images}] or [{num_images}, 1], one for each image, 0..{last}"
    if values.ndim == 2 and values.shape[1] > 1:
        kind = "numpy.argmax(labels, axis=1) makes them of one-hot rows; images of several classes each cannot be used"
        raise InputError(f"{where}: got {form(values)}; expected {wanted}. {kind}.")
    if values.dtype.kind not in "iu" or values.shape not in ((num_images,), (num_images, 1)):
        raise InputError(f"{where}: got {form(values)}; expected {wanted}.")
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest >= (num_classes or 2**31):
        raise InputError(f"{where}: got labels {lowest}..{highest}; expected {wanted}.")
    return values.reshape(-1).astype(np.int64)


def check_stored(stored: np.ndarray, where: str) -> None:
    """Raise InputError unless an array holds images that ArrayImages takes, one or more.

    Args:
        stored: The array.
        where: The file and the array, for the message.
    """
    shape, hint = stored.shape, ""
    if stored.dtype.kind == "f":
        hint = " For floats in [0, 1], (255 * images).round().astype(np.uint8) makes them."
    elif stored.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        hint = " images.transpose(0, 2, 3, 1) puts the channels last."
    has_axes = stored.ndim == 3 or (stored.ndim == 4 and shape[3] in (1, 3))
    sides = shape[1:3]
    if stored.ndim > 0 and len(stored) == 0:
        raise InputError(f"{where}: got {form(stored)}; expected one image or more.")
    if stored.dtype != np.uint8 or not has_axes or not all(_SMALLEST_PX <= side <= _LARGEST_PX for side in sides):
        raise InputError(f"{where}: got {form(stored)}; expected {IMAGES_LAYOUT}.{hint}")

"""A data set in host memory, and its split into a training part and a held-out validation part."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from fastmagn.errors import MAX_TEXT_CHARS, InputError, check, is_kept, some
from fastmagn_kernels.random import rng

# Training epochs count from 0 and never reach this one, so the split shares no draw with an epoch's order.
_SPLIT_EPOCH = 2**32 - 1


class Images(Protocol):
    """uint8 [N, H, W, 3] images: an array, or an object that decodes them when `np.asarray` asks for the pixels.

    A slice or int64 [n] rows as index give fewer images, as an object of the same kind.
    """

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray, /) -> "Images": ...

    def __array__(self) -> np.ndarray: ...


def rows_within(images: Images, num_bytes: int = 1 << 25) -> int:
    """How many of these images take up to `num_bytes` together, decoded; at least 1."""
    return max(1, num_bytes * len(images) // max(1, images.nbytes))


def even_parts(num_rows: int, num_parts: int) -> list[slice]:
    """Rows 0..num_rows - 1 in parts in order, the larger ones first; sizes differ by at most one.

    Rows of consecutive parts, cut into as many, are cut at the same places.
    """
    size, num_larger = divmod(num_rows, num_parts)
    edges = [part * size + min(part, num_larger) for part in range(num_parts + 1)]
    return [slice(*pair) for pair in pairwise(edges)]


class ImageRows:
    """Rows of an array uint8 [N, H, W, 3], copied only when `np.asarray` asks for them: the array may be a mapped file.

    Args:
        images_u8: The array.
        rows: int64 [n].
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, images_u8: np.ndarray, rows: np.ndarray) -> None:
        self._images_u8, self._rows = images_u8, rows
        self.shape = (len(rows), *images_u8.shape[1:])
        self.nbytes = int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice | np.ndarray) -> "ImageRows":
        return ImageRows(self._images_u8, self._rows[rows])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._images_u8[self._rows], dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Training and test images with their labels.

    Args:
        name: The registered name.
        class_names: K names; label k is class_names[k].
        mean: Per-channel mean of the training images, pixels in [0, 1]; None if it is not known, as these are missing.
        std: Per-channel standard deviation of the training images, pixels in [0, 1]; None likewise.
        train_images_u8: uint8 [N, H, W, 3]; arrays are contiguous. N is 0 where the test images are measured alone.
        train_labels: int64 [N], 0..K-1.
        test_images_u8: uint8 [M, H, W, 3], likewise contiguous.
        test_labels: int64 [M], 0..K-1.
    """

    name: str
    class_names: tuple[str, ...]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    train_images_u8: Images
    train_labels: np.ndarray
    test_images_u8: Images
    test_labels: np.ndarray

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the training set: SHA-256 of shapes, class names, images and labels; takes 0.1 s for CIFAR.

        Images in files contribute the fingerprint of their contents. They are not decoded, but read, unless that
        fingerprint is cached.
        """
        return self._fingerprint(self.train_images_u8, self.train_labels, "fingerprint")

    @cached_property
    def test_fingerprint(self) -> str:
        """Identifies the test set, as `fingerprint` the training set."""
        return self._fingerprint(self.test_images_u8, self.test_labels, "fingerprint")

    @property
    def former_fingerprint(self) -> str | None:
        """The fingerprint of earlier versions for images in files, of names, labels and sizes; None for arrays."""
        has_one = hasattr(self.train_images_u8, "former_fingerprint")
        if not has_one:
            return None
        return self._fingerprint(self.train_images_u8, self.train_labels, "former_fingerprint")

    def _fingerprint(self, images_u8: Images, labels: np.ndarray, of_files: str) -> str:
        digest = hashlib.sha256(repr((images_u8.shape, self.class_names)).encode())
        digest.update(images_u8 if isinstance(images_u8, np.ndarray) else getattr(images_u8, of_files).encode())
        digest.update(labels)
        return digest.hexdigest()

    def __post_init__(self) -> None:
        parts = ((self.train_images_u8, self.train_labels), (self.test_images_u8, self.test_labels))
        for images_u8, labels in parts:
            assert images_u8.dtype == np.uint8
            assert len(images_u8.shape) == 4
            assert images_u8.shape[3] == 3
            assert not isinstance(images_u8, np.ndarray) or images_u8.flags.c_contiguous
            assert labels.dtype == np.int64
            assert labels.shape == images_u8.shape[:1]
            assert np.isin(labels, np.arange(self.num_classes)).all()


def check_class_names(class_names: Sequence[str], where: str) -> None:
    """Raise InputError, before a training, if a class has a name that no command would read in the run's results.

    Args:
        class_names: The names.
        where: The folder or the argument that they are from, for the message.
    """
    unkept = [repr(name[:40]) for name in class_names if not is_kept(name)]
    if unkept:
        raise InputError(
            f"{where}: {len(unkept)} of {len(class_names)} classes have names that results cannot keep: {some(unkept)};"
            f" expected up to {MAX_TEXT_CHARS:,} characters in UTF-8 that can all be printed. Rename these classes."
        )


class ImagePart(NamedTuple):
    """A part of the training images.

    Args:
        images_u8: uint8 [N, H, W, 3].
        labels: int64 [N].
        indices: int64 [N], the images' indices in the whole training set.
    """

    images_u8: Images
    labels: np.ndarray
    indices: np.ndarray


def split_validation(image_set: ImageSet, num_images: int, seed: int) -> tuple[ImagePart, ImagePart]:
    """Split the training images into a training part and `num_images` held out for validation.

    The held-out images are the first of a permutation of all images, drawn from the seed; they are not stratified. Both
    parts keep the order and the sample indices of the full set, so an image gets the same views with and without a
    split. With `num_images` 0 the parts are the whole set (not copied) and an empty part.

    Raises:
        InputError: `num_images` is negative or leaves no image to train on.
    """
    total = len(image_set.train_labels)
    check(0 <= num_images < total, "data.num_validation_images", num_images, f"0..{total - 1}")
    order = rng.permutation(total, seed, _SPLIT_EPOCH)
    held_out, kept = np.sort(order[:num_images]), np.sort(order[num_images:])
    images_u8, labels = image_set.train_images_u8, image_set.train_labels
    if num_images == 0:
        return ImagePart(images_u8, labels, kept), ImagePart(images_u8[:0], labels[:0], held_out)
    return ImagePart(images_u8[kept], labels[kept], kept), ImagePart(images_u8[held_out], labels[held_out], held_out)

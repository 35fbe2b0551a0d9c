"""Image files as an array: decoded as a whole, or piece by piece for sets that are too large for memory."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.decoding import (
    MAX_IMAGE_SIZE_PX,
    Unreadable,
    decode_square,
    fill,
    lost_classes,
    quiet_pillow,
    resize_px,
    tried,
    warn_left_out,
    warn_of_grey,
    warn_of_lost_classes,
)
from fastmagn.data.files.headers import ImageFiles, scan
from fastmagn.data.files.items import Item
from fastmagn.data.files.listing import class_files, list_classes
from fastmagn.data.image_set import Images, even_parts
from fastmagn.data.subset import even_subset
from fastmagn.errors import check, is_integer
from fastmagn_kernels import threads


class LazyImages:
    """M image files in place of an array uint8 [M, S, S, 3]: a slice, or int64 rows, is fewer LazyImages.

    `np.asarray` decodes them.

    Mid-grey stands in for a file that cannot be decoded, and `unreadable` says why; all slices share that record.

    Args:
        paths: The files, or parts of shards.
        image_size: S, px.
        resize_px: The shorter side is resized to this (bicubic, antialiased) before the central S x S px are cut out; S
            or more px. None means S.
        padded_from: As in `decoding.central_square`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        paths: Sequence[Item],
        image_size: int,
        resize_px: int | None = None,
        padded_from: tuple[int, int] | None = None,
    ) -> None:
        self.paths = paths
        self.padded_from = padded_from
        self.image_size = image_size
        self.resize_px = resize_px or image_size
        self.unreadable: dict[Item, str] = {}
        assert self.resize_px >= image_size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.paths), self.image_size, self.image_size, 3)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, part: slice | np.ndarray) -> "LazyImages":
        paths = self.paths[part] if isinstance(part, slice) else [self.paths[row] for row in part]
        files = LazyImages(paths, self.image_size, self.resize_px, self.padded_from)
        files.unreadable = self.unreadable
        return files

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        images_u8 = np.empty(self.shape, np.uint8)
        faults = _decode_squares(self.paths, images_u8, self.resize_px, threads.num_threads(), self.padded_from)
        self.unreadable.update((fault.item, fault.reason) for fault in faults if fault)
        return images_u8 if dtype is None else images_u8.astype(dtype, copy=False)

    def readable(self) -> np.ndarray:
        """bool [M]: False for the files that could not be decoded; files that are not decoded yet count as readable."""
        return np.array([path not in self.unreadable for path in self.paths], dtype=np.bool_)


class FolderImages:
    """The central squares of image files, as an array uint8 [N, S, S, 3] that is decoded when it is read.

    Indexed by a slice or by int64 [n] rows it gives fewer images, not pixels; `np.asarray` decodes them. The shorter
    side is resized to `data.eval_resize_px` (bicubic, antialiased) and the central `image_size` square is cut out, as
    in `load_folder_images`. Mid-grey stands in for an image that cannot be decoded although its header could be read; a
    warning counts these.

    Pillow decodes here whatever `data.source` says, so that a measured accuracy does not depend on it.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: ImageFiles, config: DataConfig) -> None:
        self.files, self.config = files, config

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.files), self.config.image_size, self.config.image_size, 3)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def resize_px(self) -> int:
        """The shorter side before the centre is cut out, px."""
        return resize_px(self.config)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the files' names, labels and contents."""
        return self.files.fingerprint

    @property
    def former_fingerprint(self) -> str:
        """That of earlier versions, over names, labels and sizes in bytes."""
        return self.files.former_fingerprint

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice | np.ndarray) -> "FolderImages":
        return FolderImages(self.files[rows], self.config)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in files cannot be given without being decoded")
        images_u8, unreadable = self.decode()
        warn_of_grey(unreadable, self.files.root)
        return images_u8 if dtype is None else images_u8.astype(dtype, copy=False)

    def decode(self) -> tuple[np.ndarray, list[Unreadable]]:
        """The pixels, uint8 [N, S, S, 3], and the images for which mid-grey stands in."""
        images_u8 = np.empty(self.shape, np.uint8)
        items = [self.files.item(row) for row in range(len(self))]
        faults = _decode_squares(items, images_u8, self.resize_px, num_threads(self.config))
        return images_u8, [fault for fault in faults if fault]


def chunks(images: Images, size: int, number: int | None = None) -> Iterator[np.ndarray]:
    """The images, `size` at a time, uint8 [size, H, W, 3], each chunk a copy; files are decoded one chunk ahead.

    With `number` there are so many chunks, whatever `size` is, as equal as possible. A warning at the end counts the
    images of a FolderImages that cannot be decoded.
    """
    starts = range(0, len(images), size)
    parts = [slice(first, first + size) for first in starts] if number is None else even_parts(len(images), number)
    pieces = (images[part] for part in parts)
    if isinstance(images, np.ndarray):
        yield from map(np.array, pieces)  # a copy: a mapped file is read-only, tensors are not
        return
    unreadable: list[Unreadable] = []
    with quiet_pillow(), ThreadPoolExecutor(1) as pool:
        following = pool.submit(_pixels, next(pieces, images[:0]))
        for piece in chain(pieces, [None]):
            pixels, faults = following.result()
            unreadable += faults
            if piece is not None:
                following = pool.submit(_pixels, piece)
            yield pixels
    if unreadable and isinstance(images, FolderImages):
        warn_of_grey(unreadable, images.files.root)


def _pixels(images: Images) -> tuple[np.ndarray, list[Unreadable]]:
    return images.decode() if isinstance(images, FolderImages) else (np.asarray(images), [])


def load_folder_images(
    dir: Path, image_size: int, num_images: int = 0, resize_px: int = 0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The images of DIR/CLASS/*, or of DIR/val/CLASS/* if DIR/val exists, by class and then by file name.

    Each image is turned as its EXIF orientation says, converted to RGB, resized (bicubic, antialiased) so that its
    shorter side is resize_px, and cut to its central square: torchvision's Resize(resize_px) and
    CenterCrop(image_size). A file that cannot be decoded, is truncated, or has more than Pillow's MAX_IMAGE_PIXELS (89
    million, a guard against decompression bombs) is left out; one warning counts these, and names the classes that have
    no other file. Of several frames the first is used.

    Files are found as by torchvision's ImageFolder, in folders within a class too. Departs from it: 16-bit grey is
    scaled to 8 bits, not clipped; names that start with a dot are ignored; GIF, AVIF, JFIF, PBM and PNM are used too. A
    warning counts the files that are not used, by reason.

    Args:
        dir: The folder.
        image_size: Side of the square images, 1..4096 px.
        num_images: Load only so many images, drawn evenly over the classes by `data.subset.even_subset` from all that
            can be read; 0, or more than there are, loads all.
        resize_px: The shorter side before the square is cut out, image_size..4096 px; 0 means image_size.
        seed: Which images are drawn if `num_images` is set, 0..2^64 - 1.

    Returns:
        images_u8 uint8 [N, image_size, image_size, 3], labels int64 [N], and the K class names; label k is
        class_names[k], the k-th of the class folders in sorted order.

    Raises:
        InputError: The folder does not exist, it has no class folders, a class folder has no images, no image can be
            read, or a size is out of range.
    """
    is_size = is_integer(image_size) and 1 <= image_size <= MAX_IMAGE_SIZE_PX
    check(is_size, "image_size", image_size, f"the side of the square images, 1..{MAX_IMAGE_SIZE_PX} px")
    is_side = is_integer(resize_px) and (resize_px == 0 or image_size <= resize_px <= MAX_IMAGE_SIZE_PX)
    check(is_side, "resize_px", resize_px, f"0 (image_size) or {image_size}..{MAX_IMAGE_SIZE_PX} px")
    check(is_integer(num_images) and num_images >= 0, "num_images", num_images, "0 (all) or more")
    root = Path(dir) / "val" if (Path(dir) / "val").is_dir() else Path(dir)
    classes = list_classes(root)
    names, labels = class_files(classes, range(len(classes)))
    if num_images:  # drawn from what the headers say can be read, as an evaluation of this folder draws
        files = scan(root, names, labels)
        names, labels = list(files.names), files.labels
    paths = np.array([os.path.join(root, name) for name in names], object)
    with quiet_pillow():
        images_u8, read_labels, faults = _decode_some(
            paths, labels, num_images, seed, image_size, resize_px or image_size
        )
    warn_left_out(faults, len(names), root)
    warn_of_lost_classes(lost_classes(tuple(classes), labels if num_images else read_labels), root)
    return images_u8, read_labels, tuple(classes)


def _decode_some(
    paths: np.ndarray, labels: np.ndarray, num_images: int, seed: int, image_size: int, shorter_side_px: int
) -> tuple[np.ndarray, np.ndarray, list[Unreadable]]:
    """Decode `num_images` files, drawn evenly over the classes, or all; another file is drawn for an unreadable one.

    Returns:
        uint8 [n, S, S, 3] and labels int64 [n] of the files that can be read, and those that cannot.
    """
    faults: list[Unreadable] = []
    while True:
        is_drawn = 0 < num_images < len(paths)
        rows = even_subset(labels, num_images, seed) if is_drawn else np.arange(len(paths))
        images_u8 = np.empty((len(rows), image_size, image_size, 3), np.uint8)
        found = _decode_squares(paths[rows], images_u8, shorter_side_px, threads.num_threads())
        faults += [fault for fault in found if fault]
        is_read = np.array([fault is None for fault in found], bool)
        if is_read.all():
            return images_u8, labels[rows], faults
        if not is_drawn:
            return images_u8[is_read], labels[rows][is_read], faults
        paths, labels = np.delete(paths, rows[~is_read]), np.delete(labels, rows[~is_read])


def num_threads(config: DataConfig) -> int:
    """Threads that decode for this process: `data.num_workers`, or as many as kernels have."""
    return config.num_workers or threads.num_threads()


def _decode_squares(
    items: Sequence[Item] | np.ndarray,
    images_u8: np.ndarray,
    shorter_side_px: int,
    num_threads: int,
    padded_from: tuple[int, int] | None = None,
) -> list[Unreadable | None]:
    """Decode images into `images_u8`, uint8 [n, S, S, 3]; for each, why it could not be decoded, or None."""

    def decode(item: Item, out: np.ndarray) -> Unreadable | None:
        return fill(out, tried(decode_square, item, len(out), shorter_side_px, padded_from))

    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(decode, items, images_u8))

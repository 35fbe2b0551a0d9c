"""Image files as an array: decoded as a whole, or piece by piece for sets that are too large for memory."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.decoding import (
    MAX_IMAGE_SIZE_PX,
    Unreadable,
    decode_square,
    fill,
    quiet_pillow,
    resize_px,
    tried,
    warn_left_out,
    warn_of_grey,
)
from fastmagn.data.files.headers import ImageFiles
from fastmagn.data.files.listing import list_classes
from fastmagn.data.image_set import Images
from fastmagn.errors import check
from fastmagn_kernels import threads


class LazyImages:
    """M image files in place of an array uint8 [M, S, S, 3]: a slice is fewer LazyImages, np.asarray decodes.

    Mid-grey stands in for a file that cannot be decoded, and `unreadable` says why; all slices share that record.

    Args:
        paths: The files.
        image_size: S, px.
        resize_px: The shorter side is resized to this (bicubic, antialiased) before the central S x S px are cut out; S
            or more px. None means S.
    """

    def __init__(self, paths: Sequence[Path], image_size: int, resize_px: int | None = None) -> None:
        self.paths = paths
        self.image_size = image_size
        self.resize_px = resize_px or image_size
        self.unreadable: dict[Path, str] = {}
        assert self.resize_px >= image_size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.paths), self.image_size, self.image_size, 3)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, part: slice) -> "LazyImages":
        files = LazyImages(self.paths[part], self.image_size, self.resize_px)
        files.unreadable = self.unreadable
        return files

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        images_u8 = np.empty(self.shape, np.uint8)
        faults = _decode_squares(self.paths, images_u8, self.resize_px, os.cpu_count())
        self.unreadable.update(fault for fault in faults if fault)
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
    def fingerprint(self) -> str:
        """SHA-256 over the files' names, labels and sizes in bytes."""
        return self.files.fingerprint

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice | np.ndarray) -> "FolderImages":
        return FolderImages(self.files[rows], self.config)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in files cannot be given without being decoded")
        images_u8 = np.empty(self.shape, np.uint8)
        paths = [self.files.path(row) for row in range(len(self))]
        faults = _decode_squares(paths, images_u8, resize_px(self.config), num_threads(self.config))
        warn_of_grey([fault for fault in faults if fault], self.files.root)
        return images_u8 if dtype is None else images_u8.astype(dtype, copy=False)


def chunks(images: Images, size: int) -> Iterator[np.ndarray]:
    """The images, `size` at a time, uint8 [size, H, W, 3], each chunk a copy; files are decoded one chunk ahead."""
    pieces = (images[first : first + size] for first in range(0, len(images), size))
    if isinstance(images, np.ndarray):
        yield from map(np.array, pieces)  # a copy: a mapped file is read-only, tensors are not
        return
    with quiet_pillow(), ThreadPoolExecutor(1) as pool:
        following = pool.submit(np.asarray, next(pieces, images[:0]))
        for piece in pieces:
            decoded = following.result()
            following = pool.submit(np.asarray, piece)
            yield decoded
        yield following.result()


def load_folder_images(
    dir: Path, image_size: int, num_images: int = 0, resize_px: int = 0
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The images of DIR/CLASS/*, or of DIR/val/CLASS/* if DIR/val exists, by class and then by file name.

    Each image is turned as its EXIF orientation says, converted to RGB, resized (bicubic, antialiased) so that its
    shorter side is resize_px, and cut to its central square: torchvision's Resize(resize_px) and
    CenterCrop(image_size). A file that cannot be decoded, is truncated, or has more than Pillow's MAX_IMAGE_PIXELS (89
    million, a guard against decompression bombs) is left out; one warning counts these. Names that start with a dot are
    ignored.

    Departs from torchvision's ImageFolder: 16-bit grey is scaled to 8 bits, not clipped; folders within a class are not
    searched.

    Args:
        dir: The folder.
        image_size: Side of the square images, 1..4096 px.
        num_images: Stop after this many readable images; 0 loads all.
        resize_px: The shorter side before the square is cut out, image_size..4096 px; 0 means image_size.

    Returns:
        images_u8 uint8 [N, image_size, image_size, 3], labels int64 [N], and the K class names; label k is
        class_names[k], the k-th of the class folders in sorted order.

    Raises:
        InputError: There is no such folder, it has no class folders, a class folder has no images, no image can be
            read, or a size is out of range.
    """
    is_size = type(image_size) is int and 1 <= image_size <= MAX_IMAGE_SIZE_PX
    check(is_size, "image_size", image_size, f"the side of the square images, 1..{MAX_IMAGE_SIZE_PX} px")
    is_side = resize_px == 0 or image_size <= resize_px <= MAX_IMAGE_SIZE_PX
    check(is_side, "resize_px", resize_px, f"0 (image_size) or {image_size}..{MAX_IMAGE_SIZE_PX} px")
    root = Path(dir) / "val" if (Path(dir) / "val").is_dir() else Path(dir)
    classes = list_classes(root)
    paths = [root / folder / name for folder, names in classes.items() for name in names]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(names) for names in classes.values()])
    wanted = min(num_images, len(paths)) or len(paths)
    images_u8 = np.empty((wanted, image_size, image_size, 3), np.uint8)
    faults: list[Unreadable | None] = []  # of the files tried so far, in order
    num_read = 0
    with quiet_pillow():
        while num_read < wanted and len(faults) < len(paths):
            tried_now = paths[len(faults) : len(faults) + wanted - num_read]
            pixels_u8 = images_u8[num_read : num_read + len(tried_now)]
            faults += _decode_squares(tried_now, pixels_u8, resize_px or image_size, os.cpu_count())
            is_read = np.array([fault is None for fault in faults[-len(tried_now) :]])
            if not is_read.all():
                pixels_u8[: is_read.sum()] = pixels_u8[is_read]
            num_read += int(is_read.sum())
    warn_left_out([fault for fault in faults if fault], len(faults), dir)
    kept = [row for row, fault in enumerate(faults) if fault is None]
    return images_u8[:num_read], labels[kept], tuple(classes)


def num_threads(config: DataConfig) -> int:
    """Threads that decode for this process: `data.num_workers`, or as many as kernels have."""
    return config.num_workers or threads.num_threads()


def _decode_squares(
    paths: Sequence[str | Path], images_u8: np.ndarray, shorter_side_px: int, threads: int | None
) -> list[Unreadable | None]:
    """Decode files into `images_u8`, uint8 [n, S, S, 3]; for each file, why it could not be decoded, or None."""

    def decode(path: str | Path, out: np.ndarray) -> Unreadable | None:
        return fill(out, tried(decode_square, path, len(out), shorter_side_px))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(decode, paths, images_u8))

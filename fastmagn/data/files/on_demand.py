"""Image files as an array that is decoded piece by piece: sets that are too large for memory, read while measured."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
from PIL import Image

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.decoding import MAX_IMAGE_SIZE_PX, decode_image, or_reason, resize_px
from fastmagn.data.files.headers import ImageFiles
from fastmagn.data.files.listing import LAYOUT, list_classes, report_unreadable, some
from fastmagn.data.image_set import Images
from fastmagn.errors import InputError, check

GREY = 128  # stands in for an image that cannot be decoded


class LazyImages:
    """M image files that stand for an array uint8 [M, S, S, 3]: a slice is fewer LazyImages, np.asarray decodes.

    A file that cannot be decoded comes as a black image, and `unreadable` says why; all slices share that record.

    Args:
        paths: The files.
        image_size: S, px: the shorter side is resized to it (bicubic, antialiased) where it differs, the centre kept.
        resize_px: Resize the shorter side to this instead, S or more, before the central S x S px are cut out.
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
        images_u8 = np.zeros(self.shape, np.uint8)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._decode_into, images_u8, self.paths))
        return images_u8 if dtype is None else images_u8.astype(dtype, copy=False)

    def readable(self) -> np.ndarray:
        """bool [M]: which of the files that have been decoded so far could be."""
        return np.array([path not in self.unreadable for path in self.paths], dtype=np.bool_)

    def _decode_into(self, image_u8: np.ndarray, path: Path) -> None:
        pixels = or_reason(decode_image)(path, self.image_size, self.resize_px)
        if isinstance(pixels, str):
            self.unreadable[path] = pixels
        else:
            image_u8[:] = pixels


def chunks(images: Images, size: int) -> Iterator[np.ndarray]:
    """The images, `size` at a time, uint8 [size, H, W, 3], each an own copy; files are decoded one chunk ahead."""
    pieces = (images[first : first + size] for first in range(0, len(images), size))
    if isinstance(images, np.ndarray):
        yield from map(np.array, pieces)  # a copy: a mapped file is read-only, tensors are not
        return
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as pool:
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # on palettes and broken EXIF
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        following = pool.submit(np.asarray, next(pieces, images[:0]))
        for piece in pieces:
            decoded = following.result()
            following = pool.submit(np.asarray, piece)
            yield decoded
        yield following.result()


def load_folder_images(
    dir: Path, image_size: int, num_images: int = 0, resize_px: int = 0
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The images of DIR/CLASS/*, or of DIR/val/CLASS/* where DIR/val exists, by class and then file name.

    Each is turned as its EXIF orientation says, made RGB, resized (bicubic, antialiased) so that its shorter side is
    resize_px, and cut to its central square: torchvision's Resize(resize_px) and CenterCrop(image_size). A file that
    cannot be decoded, is truncated, or has more than Pillow's MAX_IMAGE_PIXELS (89 million, a guard against
    decompression bombs) is left out; one warning counts these. Names that start with a dot are not looked at.

    Departs from torchvision's ImageFolder: 16-bit grey is scaled to 8 bits, not clipped; folders within a class are not
    searched.

    Args:
        dir: The folder.
        image_size: Side of the square images, 1..4096 px.
        num_images: Stop after this many readable images, 0 for all.
        resize_px: The shorter side before the cut, image_size..4096 px; 0 means image_size.

    Returns:
        images_u8 uint8 [N, image_size, image_size, 3], labels int64 [N], and the K class names; label k is
        class_names[k], the k-th of the class folders in sorted order.

    Raises:
        InputError: No folder, no class folders, a class folder without images, no image that can be read, or no
            image_size.
    """
    is_size = type(image_size) is int and 1 <= image_size <= MAX_IMAGE_SIZE_PX
    check(is_size, "image_size", image_size, f"the side of the square images, 1..{MAX_IMAGE_SIZE_PX} px")
    is_side = resize_px == 0 or image_size <= resize_px <= MAX_IMAGE_SIZE_PX
    check(is_side, "resize_px", resize_px, f"0 (image_size) or {image_size}..{MAX_IMAGE_SIZE_PX} px")
    decode = or_reason(partial(decode_image, image_size=image_size, resize_px=resize_px))
    class_names, paths, labels = _list_images(Path(dir))
    wanted = num_images or len(paths)
    images_u8 = np.empty((min(wanted, len(paths)), image_size, image_size, 3), np.uint8)
    kept: list[int] = []
    unreadable: list[str] = []
    position = 0
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, on palettes and broken EXIF
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        while len(kept) < wanted and position < len(paths):
            batch = range(position, min(position + wanted - len(kept), len(paths)))
            position = batch.stop
            decoded = pool.map(decode, (paths[i] for i in batch))
            for i, pixels in zip(batch, decoded, strict=True):
                if isinstance(pixels, str):
                    unreadable.append(f"{paths[i]} ({pixels})")
                else:
                    images_u8[len(kept)] = pixels
                    kept.append(i)
    report_unreadable(unreadable, position, dir)
    return images_u8[: len(kept)], labels[kept], class_names


def _list_images(dir: Path) -> tuple[tuple[str, ...], list[Path], np.ndarray]:
    """Class names, paths by class and file name, and their labels, int64 [N]."""
    if not dir.is_dir():
        raise InputError(f"{dir}: no such folder; expected one with {LAYOUT}.")
    root = dir / "val" if (dir / "val").is_dir() else dir
    classes = list_classes(root)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(names) for names in classes.values()])
    return tuple(classes), [root / folder / name for folder, names in classes.items() for name in names], labels


class FolderImages:
    """The central squares of image files, as an array uint8 [N, S, S, 3] that is decoded when it is read.

    Indexed by a slice or by int64 [n] rows it gives fewer images, not pixels; `np.asarray` decodes them: shorter side
    to `eval_resize_px` (bicubic, antialiased), centre cropped to `image_size`, as `load_folder_images` does. An image
    that turns out not to decode, though its header was whole, is mid-grey; a warning counts these.

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
        """SHA-256 over the files' names, labels and sizes."""
        return self.files.fingerprint

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice | np.ndarray) -> "FolderImages":
        return FolderImages(self.files[rows], self.config)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("images in files cannot be given without being decoded")
        images_u8 = np.empty(self.shape, np.uint8)
        decode = or_reason(partial(decode_image, image_size=self.config.image_size, resize_px=resize_px(self.config)))
        unreadable = []
        with ThreadPoolExecutor(num_threads(self.config)) as pool:
            paths = [self.files.path(row) for row in range(len(self))]
            for row, pixels in enumerate(pool.map(decode, paths)):
                images_u8[row] = GREY if isinstance(pixels, str) else pixels
                if isinstance(pixels, str):
                    unreadable.append(f"{paths[row]} ({pixels})")
        warn_of_grey(unreadable, self.files.root)
        return images_u8 if dtype is None else images_u8.astype(dtype, copy=False)


def warn_of_grey(unreadable: list[str], root: Path) -> None:
    """Say which images were mid-grey because they could not be decoded, if any."""
    if unreadable:
        warnings.warn(
            f"{root}: {len(unreadable)} images cannot be decoded, though their headers can be read; mid-grey stands in"
            f" for them: {some(unreadable)}.",
            stacklevel=3,
        )


def num_threads(config: DataConfig) -> int:
    """Threads that decode for this process; `data.num_workers`, or one a core that it has of the host's."""
    return config.num_workers or numba.get_num_threads()  # join_world shares the cores of a host

"""Image files as an array that is decoded piece by piece: sets that are too large for memory, read while measured."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastmagn.data.folder import decode_image
from fastmagn.data.image_files import IMAGE_SUFFIXES, or_reason
from fastmagn.data.image_set import Images
from fastmagn.errors import InputError


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


def image_names(folder: Path) -> list[str]:
    """The names of a folder's image files, sorted; those that start with a dot are not looked at.

    Raises:
        InputError: There is no such folder, or it cannot be read.
    """
    return sorted(
        entry.name
        for entry in _entries(folder, "a folder of images")
        if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
    )


def class_folders(folder: Path) -> list[str]:
    """The names of a folder's subfolders, sorted; those that start with a dot are not looked at.

    Raises:
        InputError: There is no such folder, it cannot be read, or it has none.
    """
    entries = _entries(folder, "a folder with a subfolder for each class")
    names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    if not names:
        raise InputError(f"{folder}: has no subfolders; expected one for each class, with its images in it.")
    return names


def _entries(folder: Path, expected: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder; expected {expected}.") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); expected {expected}.") from error

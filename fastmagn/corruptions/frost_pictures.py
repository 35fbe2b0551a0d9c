"""The frost pictures: data in the PyPI package imagecorruptions-imaug, read without importing its code."""

import importlib.util
import math
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fastmagn.errors import InputError

FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg", "frost6.jpg")

_NUM_SMALL = 5  # the script that made the 32x32 sets uses the first five pictures, at a fifth of their size
_SHRINK = 5
_MARGIN = 1.1  # so that crops can differ if a picture is resized to fit the images


def find_frost_pictures() -> tuple[Path, ...]:
    """The six pictures' paths in the installed package; empty if the package or one of the pictures is absent."""
    # find_spec of a top-level package runs no code of it; importing it would need OpenCV and its display libraries.
    spec = importlib.util.find_spec("imagecorruptions")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        paths = tuple(Path(folder) / "frost" / name for name in FROST_FILES)
        if all(path.is_file() for path in paths):
            return paths
    return ()


def frost_sizes(height_px: int, width_px: int, large: bool) -> tuple[tuple[int, int], ...]:
    """The sizes (height, width) to which pictures are resized before they are cropped; larger than the images.

    Small images: five pictures at a fifth of their size, or, if that does not cover the images, at 1.1 times the
    smallest size that does. Large images: six pictures at 1.1 times their size, or at 1.1 times the smallest size that
    covers the images.

    Raises:
        InputError: The pictures are not installed.
    """
    sizes = []
    for picture in _read_pictures()[: None if large else _NUM_SMALL]:
        height, width, _ = picture.shape
        fit = max(height_px / height, width_px / width)
        fifth = len(range(_SHRINK // 2, height, _SHRINK)), len(range(_SHRINK // 2, width, _SHRINK))
        if not large and fifth[0] > height_px and fifth[1] > width_px:
            sizes.append(fifth)
        else:
            scale = _MARGIN * (max(1.0, fit) if large else fit)
            sizes.append((math.ceil(height * scale), math.ceil(width * scale)))
    return tuple(sizes)


def load_frost_pictures(sizes: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, ...]:
    """The first pictures, one for each of `sizes` (height, width), resized to it: uint8 [h, w, 3], RGB.

    Raises:
        InputError: The pictures are not installed.
    """
    return tuple(_resize(picture, *size) for picture, size in zip(_read_pictures(), sizes, strict=False))


def cubic_taps(side_px: int, new_side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples of a cubic resize (a = -3/4) along a side.

    Source: R. Keys, "Cubic convolution interpolation for digital image processing", 1981; the border repeats its edge.

    Returns:
        Indices, int64 [new_side, 4]; weights in units of 2^-11, int64 [new_side, 4].
    """
    position = (np.arange(new_side_px) + 0.5) * (side_px / new_side_px) - 0.5
    first = np.floor(position).astype(np.int64)
    distance = abs(position[:, None] - (first[:, None] + np.arange(-1, 3)))
    near = (1.25 * distance - 2.25) * distance**2 + 1
    far = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
    weights = np.rint(np.where(distance <= 1, near, far) * 2**11).astype(np.int64)
    return np.clip(first[:, None] + np.arange(-1, 3), 0, side_px - 1), weights


@cache
def _read_pictures() -> tuple[np.ndarray, ...]:
    paths = find_frost_pictures()
    if not paths:
        raise InputError(
            "frost: its pictures are not installed; expected the package imagecorruptions-imaug. "
            'Run `pip install "fastmagn[corruptions]"`, or leave frost out.'
        )
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    return tuple(pictures)


def _resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's bicubic resize in its fixed-point arithmetic; its bilinear resize to a fifth of the size."""
    fifth = picture[_SHRINK // 2 :: _SHRINK, _SHRINK // 2 :: _SHRINK]
    if fifth.shape[:2] == (height, width):  # bilinear by exactly 1/5 samples at 5 i + 2
        return np.ascontiguousarray(fifth)
    rows, row_weights = cubic_taps(picture.shape[0], height)
    columns, column_weights = cubic_taps(picture.shape[1], width)
    wide = sum(picture[:, columns[:, k]] * column_weights[:, k, None] for k in range(4))
    tall = sum(wide[rows[:, k]] * row_weights[:, k, None, None] for k in range(4))
    return np.uint8(np.clip((tall + 2**21) >> 22, 0, 255))

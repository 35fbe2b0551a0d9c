"""The frost pictures: data in the PyPI package imagecorruptions-imaug, read without importing its code."""

import importlib.util
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fastmagn.errors import InputError

FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg", "frost6.jpg")

_NUM_USED = 5  # the published sets' scripts draw among the first five
_MARGIN = 1.1  # so that crops can differ if a picture is resized to fit the images


class PictureSize(NamedTuple):
    """The size to which a picture is resized: bilinearly by `scale`; bicubically if that is None."""

    height: int
    width: int
    scale: float | None


def find_frost_pictures() -> tuple[Path, ...]:
    """The six pictures' paths in the installed package; empty if the package or one of the pictures is absent."""
    # find_spec of a top-level package runs no code of it; importing it would need OpenCV and its display libraries.
    spec = importlib.util.find_spec("imagecorruptions")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        paths = tuple(Path(folder) / "frost" / name for name in FROST_FILES)
        if all(path.is_file() for path in paths):
            return paths
    return ()


def frost_sizes(height_px: int, width_px: int, scale: float) -> tuple[PictureSize, ...]:
    """The sizes to which the five pictures are resized before they are cropped; larger than the images.

    They are `scale` times their own size, 0 < scale <= 1, or, if that does not cover the images, 1.1 times the smallest
    size that does.

    Raises:
        InputError: The pictures are not installed.
    """
    sizes = []
    for picture in _read_pictures()[:_NUM_USED]:
        height, width, _ = picture.shape
        published = PictureSize(round(height * scale), round(width * scale), scale)
        if published.height > height_px and published.width > width_px:
            sizes.append(published)
        else:
            fit = _MARGIN * max(height_px / height, width_px / width)
            sizes.append(PictureSize(math.ceil(height * fit), math.ceil(width * fit), None))
    return tuple(sizes)


def load_frost_pictures(sizes: tuple[PictureSize, ...]) -> tuple[np.ndarray, ...]:
    """The first pictures, one for each of `sizes`, resized to it: uint8 [h, w, 3], RGB.

    Raises:
        InputError: The pictures are not installed.
    """
    return tuple(_resize(picture, size) for picture, size in zip(_read_pictures(), sizes, strict=False))


def linear_taps(side_px: int, new_side_px: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The samples of a bilinear resize by `scale` along a side; the border repeats its edge.

    Returns:
        Indices, int64 [new_side, 2]; weights in units of 2^-11, int64 [new_side, 2].
    """
    position = np.clip((np.arange(new_side_px) + 0.5) / scale - 0.5, 0, side_px - 1)
    first = np.minimum(np.floor(position).astype(np.int64), side_px - 2)
    second_weight = np.rint((position - first) * 2**11).astype(np.int64)
    return first[:, None] + np.arange(2), np.stack([2**11 - second_weight, second_weight], axis=1)


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
            'Run `pip install "fastmagn[corruptions]"`, or choose corruptions without frost: the set cbar has none.'
        )
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("RGB")))
    return tuple(pictures)


def _resize(picture: np.ndarray, size: PictureSize) -> np.ndarray:
    """OpenCV's resize of a picture, uint8 [H, W, 3], in its fixed-point arithmetic."""
    if size.scale == 1:
        return picture
    if size.scale is None:
        rows, row_weights = cubic_taps(picture.shape[0], size.height)
        columns, column_weights = cubic_taps(picture.shape[1], size.width)
    else:
        rows, row_weights = linear_taps(picture.shape[0], size.height, size.scale)
        columns, column_weights = linear_taps(picture.shape[1], size.width, size.scale)
    wide = sum(picture[:, columns[:, k]] * column_weights[:, k, None] for k in range(columns.shape[1]))
    if size.scale is not None:
        tall = sum((wide[rows[:, k]] >> 4) * row_weights[:, k, None, None] >> 16 for k in range(2))
        return (tall + 2 >> 2).astype(np.uint8)
    tall = sum(wide[rows[:, k]] * row_weights[:, k, None, None] for k in range(4))
    return np.clip((tall + 2**21) >> 22, 0, 255).astype(np.uint8)

"""The frost pictures: data of the PyPI package imagecorruptions-imaug, read without importing any of its code."""

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from fastmagn.errors import InputError

# The script that made the published sets draws from the first five of the six.
FROST_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")


def find_frost_pictures() -> tuple[Path, ...]:
    """The five pictures' paths in the installed package; empty where the package or one of them is absent."""
    # find_spec of a top-level package runs nothing of it; importing it would need OpenCV and its display libraries.
    spec = importlib.util.find_spec("imagecorruptions")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        paths = tuple(Path(folder) / "frost" / name for name in FROST_FILES)
        if all(path.is_file() for path in paths):
            return paths
    return ()


@lru_cache(maxsize=1)
def load_frost_pictures() -> tuple[np.ndarray, ...]:
    """The five pictures at a fifth of their size: uint8 [h, w, 3], RGB.

    Bilinear resizing by exactly 1/5 samples at 5 i + 2: it is the same as taking every fifth pixel.

    Raises:
        InputError: The pictures are not installed.
    """
    paths = find_frost_pictures()
    if not paths:
        raise InputError(
            "frost: its pictures are not installed; expected the package imagecorruptions-imaug. "
            'Run `pip install "fastmagn[corruptions]"`, or leave frost out.'
        )
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append(np.ascontiguousarray(np.asarray(picture.convert("RGB"))[2::5, 2::5]))
    return tuple(pictures)

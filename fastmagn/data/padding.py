"""Padding of small images and of images that are not square, as sets of arrays have it.

Shape letters: N images, H W image, S side of the square.
"""

from typing import Any

import numpy as np


def pad_by_edges(pixels: np.ndarray, side: int) -> np.ndarray:
    """Images [N, H, W, C], padded to [N, S, S, C] by repeating the pixels of their edges.

    Both sides get as much, the odd pixel is at the bottom and right. Images of S x S px are returned as they are.
    """
    height, width = pixels.shape[1:3]
    if (height, width) == (side, side):
        return pixels
    above, left = (side - height) // 2, (side - width) // 2
    widths = ((0, 0), (above, side - height - above), (left, side - width - left), (0, 0))
    return np.pad(pixels, widths, mode="edge")


def padded_from(images_u8: Any) -> tuple[int, int] | None:
    """(H, W) of a set's images before they are padded, px; None if they are not padded."""
    return getattr(images_u8, "padded_from", None)


def former_padding(name: str) -> tuple[int, int] | None:
    """`padded_from` of the set `name`, where a run or an exported file of an earlier version does not say it."""
    return (28, 28) if name.startswith("torchvision:") and name.partition("-")[0].endswith("MNIST") else None

"""Pictures for the corruption tests: real CIFAR images where FASTMAGN_DATA is set, and scikit-image's photographs."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from skimage.transform import resize

from fastmagn.data.cifar import load_cifar10


@pytest.fixture(scope="session")
def pictures() -> np.ndarray:
    """1,000 photographs, uint8 [1000, 32, 32, 3]."""
    folder = os.environ.get("FASTMAGN_DATA")
    return read_cifar(Path(folder)) if folder else cut_tiles()


@pytest.fixture(scope="session")
def photographs() -> dict[tuple[int, int], np.ndarray]:
    """Eight photographs of each of three sizes, by (height, width): uint8 [8, H, W, 3]."""
    return {size: cut_photographs(*size) for size in ((224, 224), (96, 128), (131, 150))}


def cut_photographs(height: int, width: int) -> np.ndarray:
    """Photographs that scikit-image ships, whole and cut out."""
    photographs = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    whole = [np.uint8(resize(photograph, (height, width), anti_aliasing=True) * 255) for photograph in photographs]
    return np.stack([*whole, *(photograph[-height:, -width:] for photograph in photographs)])


def read_cifar(folder: Path) -> np.ndarray:
    """The first 1,000 test images of CIFAR-10."""
    return load_cifar10(folder, download=False).test_images_u8[:1000]


def cut_tiles() -> np.ndarray:
    """Tiles of the photographs that scikit-image ships, at a third of their size."""
    tiles = []
    for photograph in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        height, width = (side // 3 // 32 * 32 for side in photograph.shape[:2])
        small = np.uint8(resize(photograph, (height, width), anti_aliasing=True) * 255)
        for _ in range(4):
            small = np.roll(small, (8, 8), axis=(0, 1))
            cut = small.reshape(height // 32, 32, width // 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
            tiles.extend(cut)
    return np.ascontiguousarray(np.resize(np.array(tiles), (1000, 32, 32, 3)))

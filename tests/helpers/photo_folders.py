"""Folders of JPEGs for tests: train/CLASS and val/CLASS, of real CIFAR images where they are, else of the digits."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmagn.data import load_images

SIZES = [(96, 72), (64, 64), (50, 120), (131, 97), (75, 100), (200, 150)]  # height, width
CLASSES = ("ape", "bee", "cat")
SUBSAMPLINGS = ("4:2:0", "4:4:4", "4:2:2")


@cache
def small_pictures(count: int) -> np.ndarray:
    """uint8 [count, 32, 32, 3]: test images of CIFAR-10 where FASTMAGN_DATA says where it is, else digits."""
    folder = os.environ.get("FASTMAGN_DATA")
    image_set = load_images("cifar10", Path(folder)) if folder else load_images("digits", Path())
    return image_set.test_images_u8[:count]


def enlarged(picture: np.ndarray, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture as a photograph of height x width px: smooth, with some grain of colour."""
    pixels = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
    grain = np.random.default_rng(seed).normal(0, 6, pixels.shape)
    return (pixels + grain).clip(0, 255).astype(np.uint8)


def make_photo_folder(root: Path, num_train: int, num_val: int) -> Path:
    """`root` with JPEGs of several sizes and samplings, spread over three classes."""
    pictures = small_pictures(num_train + num_val)
    for i, picture in enumerate(pictures):
        part = root / ("train" if i < num_train else "val") / CLASSES[i % len(CLASSES)]
        part.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(enlarged(picture, *SIZES[i % len(SIZES)], seed=i))
        image.save(part / f"{i:04}.jpg", quality=90, subsampling=SUBSAMPLINGS[i // 2 % 3], progressive=i % 7 == 0)
    return root


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory) -> Path:
    """104 training and 25 validation photographs. Nobody writes to it."""
    return make_photo_folder(tmp_path_factory.mktemp("photos"), 104, 25)

"""Images to hold the engines to Pillow on: noise, smooth, constant, few-valued, photographs, and CIFAR where it is."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.data.cifar import load_cifar10


@contextmanager
def _default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture
def default_float64() -> Callable[[], AbstractContextManager[None]]:
    """A context in which float64 is PyTorch's default dtype, as in programs that need it for something else."""
    return _default_float64


@cache
def _photographs() -> tuple[np.ndarray, ...]:
    skimage_data = pytest.importorskip("skimage.data")
    datasets = pytest.importorskip("sklearn.datasets")
    return (
        np.asarray(skimage_data.astronaut()),
        datasets.load_sample_image("china.jpg"),
        datasets.load_sample_image("flower.jpg"),
    )


@cache
def _pictures(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    shape = (height, width, 3)
    y, x = np.mgrid[:height, :width]
    ramp = np.stack([255 * x / width, 255 * y / height, 127 * (x + y) / (height + width)], -1).astype(np.uint8)
    checker = np.repeat(((x + y) % 2 * 255)[..., None], 3, -1).astype(np.uint8)
    images = [
        rng.integers(0, 256, shape, dtype=np.uint8),
        rng.integers(90, 110, shape, dtype=np.uint8),
        rng.choice(np.array([3, 250], np.uint8), shape),
        np.zeros(shape, np.uint8),
        np.full(shape, 255, np.uint8),
        np.broadcast_to(np.array([200, 31, 7], np.uint8), shape),
        ramp,
        checker,
    ]
    for photograph in _photographs():
        images.append(np.asarray(Image.fromarray(photograph).resize((width, height), Image.Resampling.BICUBIC)))
        top, left = min(150, photograph.shape[0] - height), min(200, photograph.shape[1] - width)
        crop = photograph[top : top + height, left : left + width]
        images.append(np.ascontiguousarray(crop))
    return np.stack(images)


@pytest.fixture(scope="session")
def pictures() -> Callable[[int, int], np.ndarray]:
    """(height, width) -> uint8 [14, height, width, 3]."""
    return _pictures


@pytest.fixture(scope="session")
def cifar_images() -> np.ndarray:
    """1,000 real CIFAR-10 images, uint8 [1000, 32, 32, 3]."""
    root = os.environ.get("FASTMAGN_DATA")
    if not root:
        pytest.skip("FASTMAGN_DATA is not set (the folder that holds cifar-10-batches-py)")
    return load_cifar10(Path(root), download=False).train_images_u8[:1000]


@pytest.fixture(autouse=True)
def _backend_is_installed(request: pytest.FixtureRequest) -> None:
    """Skips a test of a backend that needs an extra which is not installed."""
    modules = {"dali": "nvidia.dali", "kornia": "kornia"}
    backend = request.node.callspec.params.get("backend") if hasattr(request.node, "callspec") else None
    if backend in modules:
        pytest.importorskip(modules[backend], reason=f"needs pip install 'fastmagn[{backend}]'")

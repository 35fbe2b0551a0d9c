"""The corruptions that draw nothing, against the plain scikit-image, SciPy and Pillow computation, image by image."""

import numpy as np
import pytest

from benchmarks.plain_corruptions import DETERMINISTIC, PLAIN
from fastmagn.corruptions import corrupt
from tests.helpers.tiers import slow_but


def plain(images: np.ndarray, name: str, severity: int) -> np.ndarray:
    return np.stack([PLAIN[name](image, severity, None) for image in images])


@pytest.mark.parametrize("severity", slow_but([1, 2, 3, 4, 5], 1, 5))
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_is_the_plain_computation(name, severity, pictures):
    difference = np.abs(corrupt(pictures, name, severity).astype(int) - plain(pictures, name, severity))
    assert difference.max() <= 1
    assert (difference == 0).mean() >= 0.99


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("size", [(224, 224), (96, 128)], ids=str)
def test_medium_and_large_images(name, severity, size, photographs):
    images = photographs[size][3 if size[0] > 200 else 0 :: 4 if size[0] > 200 else 1]
    difference = np.abs(corrupt(images, name, severity).astype(int) - plain(images, name, severity))
    assert difference.max() <= 1
    assert (difference == 0).mean() >= 0.999


@pytest.mark.parametrize("name", ["jpeg_compression", "pixelate"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (45, 70), (8, 9), (53, 47), (17, 24), (64, 75), (101, 90)])
def test_pillow_ones_are_exact_at_any_size(name, height, width):
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    images[1, : height // 2] = 255
    images[2] = 255 * (images[2] > 127)
    for severity in (1, 2, 3, 4, 5):
        np.testing.assert_array_equal(corrupt(images, name, severity), plain(images, name, severity))


@pytest.mark.parametrize("name", ["gaussian_blur", "brightness", "saturate", "contrast"])
def test_other_sizes(name):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 51, 3), np.uint8)
    assert np.abs(corrupt(images, name, 3).astype(int) - plain(images, name, 3)).max() <= 1


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "zoom_blur", "pixelate", "jpeg_compression"])
@pytest.mark.parametrize("side", [32, 80])
def test_flat_black_and_white_stay(name, side):
    images = np.zeros((2, side, side, 3), np.uint8)
    images[1] = 255
    for severity in (1, 5):
        assert np.abs(corrupt(images, name, severity).astype(int) - images).max() <= 1


@pytest.mark.parametrize("side", [64, 128])
@pytest.mark.parametrize("name", ["jpeg_compression", "pixelate", "gaussian_blur"])
def test_the_shorter_side_decides_the_severities(name, side):
    """63 px as CIFAR-10-C, 64 and 127 px as Tiny-ImageNet-C, 128 px as ImageNet-C: the same rows, visibly apart."""
    image = np.random.default_rng(0).integers(0, 200, (1, side, side + 26, 3), np.uint8)
    larger, smaller = corrupt(image, name, 5), corrupt(image[:, :-1], name, 5)
    for images, corrupted in ((image, larger), (image[:, :-1], smaller)):
        assert np.abs(corrupted.astype(int) - plain(images, name, 5)).max() <= 1
    assert np.abs(larger[:, :-8].astype(int) - smaller[:, :-7]).mean() > 2

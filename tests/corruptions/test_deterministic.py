"""The corruptions that draw nothing, against the plain scikit-image, SciPy and Pillow computation, image by image."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.color import hsv2rgb, rgb2hsv
from skimage.filters import gaussian

from fastmagn.corruptions import corrupt


def truncated(image: np.ndarray) -> np.ndarray:
    return np.uint8(np.clip(image, 0, 1) * 255)


def plain_gaussian_blur(image, severity):
    return truncated(gaussian(image / 255, sigma=[0.4, 0.6, 0.7, 0.8, 1][severity - 1], channel_axis=-1))


def plain_defocus_blur(image, severity):
    radius, sigma = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][severity - 1]
    grid = np.arange(-8, 9)
    disk = np.float32(grid[:, None] ** 2 + grid**2 <= radius**2)
    tap = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    tap = np.float32(tap / tap.sum())
    disk = ndimage.correlate1d(ndimage.correlate1d(disk / disk.sum(), tap, axis=1), tap, axis=0)
    return truncated(np.stack([ndimage.correlate(image[..., c] / 255, disk, mode="mirror") for c in range(3)], -1))


def plain_zoom_blur(image, severity):
    unit = (image / 255).astype(np.float32)
    factors = np.arange(1, [1.06, 1.11, 1.16, 1.21, 1.26][severity - 1], 0.01)
    assert len(factors) == [7, 12, 16, 21, 26][severity - 1]
    total = np.zeros_like(unit)
    for factor in factors:
        side = int(np.ceil(32 / factor))
        first = (32 - side) // 2
        zoomed = ndimage.zoom(unit[first : first + side, first : first + side], (factor, factor, 1), order=1)
        trim = (len(zoomed) - 32) // 2
        total += zoomed[trim : trim + 32, trim : trim + 32]
    return truncated((unit + total) / (len(factors) + 1))


def plain_brightness(image, severity):
    hsv = rgb2hsv(image / 255)
    hsv[..., 2] = np.clip(hsv[..., 2] + [0.05, 0.1, 0.15, 0.2, 0.3][severity - 1], 0, 1)
    return truncated(hsv2rgb(hsv))


def plain_saturate(image, severity):
    factor, shift = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][severity - 1]
    hsv = rgb2hsv(image / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + shift, 0, 1)
    return truncated(hsv2rgb(hsv))


def plain_contrast(image, severity):
    unit = image / 255
    mean = unit.mean((0, 1))
    return truncated((unit - mean) * [0.75, 0.5, 0.4, 0.3, 0.15][severity - 1] + mean)


def plain_jpeg_compression(image, severity):
    stream = BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=[80, 65, 58, 50, 40][severity - 1])
    return np.asarray(Image.open(stream))


def plain_pixelate(image, severity):
    height, width, _ = image.shape
    factor = [0.95, 0.9, 0.85, 0.75, 0.65][severity - 1]
    small = Image.fromarray(image).resize((int(width * factor), int(height * factor)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


PLAIN = {name.removeprefix("plain_"): function for name, function in globals().items() if name.startswith("plain_")}


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", PLAIN)
def test_is_the_plain_computation(name, severity, pictures):
    got = corrupt(pictures, name, severity)
    expected = np.stack([PLAIN[name](image, severity) for image in pictures])
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() >= 0.99


@pytest.mark.parametrize("name", ["jpeg_compression", "pixelate"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (45, 70), (8, 9), (53, 47)])
def test_pillow_ones_are_exact_at_any_size(name, height, width):
    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    images[1, : height // 2] = 255
    for severity in (1, 3, 5):
        expected = np.stack([PLAIN[name](image, severity) for image in images])
        np.testing.assert_array_equal(corrupt(images, name, severity), expected)


@pytest.mark.parametrize("name", ["gaussian_blur", "brightness", "saturate", "contrast"])
def test_other_sizes(name):
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 51, 3), np.uint8)
    expected = np.stack([PLAIN[name](image, 3) for image in images])
    assert np.abs(corrupt(images, name, 3).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "zoom_blur", "pixelate", "jpeg_compression"])
def test_flat_black_and_white_stay(name):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[1] = 255
    for severity in (1, 5):
        assert np.abs(corrupt(images, name, severity).astype(int) - images).max() <= 1

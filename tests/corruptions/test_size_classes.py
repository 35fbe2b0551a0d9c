"""Which published set images are corrupted as: by their size, as the documentation says, and stored as it was."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmagn.corruptions import SIZE_CLASSES, corrupt, corrupted_as, size_class

PAGE = Path(__file__).parents[2] / "docs" / "corruptions.md"


def test_the_documentations_table_is_the_codes():
    rows = re.findall(r"^\| (\d+) (?:to (\d+)|and more) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    following = [size.min_side_px for size in SIZE_CLASSES[1:]]
    assert [(int(first), last and int(last) + 1) for first, last, _ in rows] == [
        (size.min_side_px, end) for size, end in zip(SIZE_CLASSES, [*following, ""], strict=True)
    ]
    for size, (*_, cells) in zip(SIZE_CLASSES, rows, strict=True):
        stored = f"JPEG {size.jpeg_quality}" if size.jpeg_quality else "arrays"
        frost = f"at {size.frost_scale} of their size"
        script = f"`{size.script}`, {size.script_side_px} px"
        assert cells.split(" | ") == [size.published, script, frost, stored, str(size.version)]


@pytest.mark.parametrize(
    ("height", "width", "name"),
    [
        *((8, 8, "small"), (32, 32, "small"), (63, 500, "small"), (500, 63, "small")),
        *((64, 64, "medium"), (127, 300, "medium"), (128, 128, "large"), (224, 224, "large"), (300, 2000, "large")),
    ],
)
def test_the_shorter_side_decides(height, width, name):
    assert size_class((5, height, width, 3)).name == name


def through_pillow(image: np.ndarray) -> np.ndarray:
    """The image after a file as the scripts save it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85, optimize=True)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("size", [(64, 64), (83, 71), (130, 150), (224, 224)], ids=str)
@pytest.mark.parametrize("name", ["gaussian_noise", "jpeg_compression"])
def test_jpeg_gives_the_pixels_of_the_scripts_file(name, size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    images[1] = images[1] // 64 * 64
    stored = corrupt(images, name, 3, jpeg=True)
    np.testing.assert_array_equal(stored, [through_pillow(image) for image in corrupt(images, name, 3)])
    assert corrupted_as(images.shape, jpeg=True)["jpeg_quality"] == 85
    assert corrupted_as(images.shape, jpeg=False)["jpeg_quality"] is None


@pytest.mark.parametrize(
    ("side", "of_c", "of_cbar"),
    [
        (32, "CIFAR-10-C, CIFAR-100-C", "CIFAR-10-C-bar"),
        (64, "Tiny-ImageNet-C, ImageNet-64-C", "ImageNet-C-bar"),
        (224, "ImageNet-C", "ImageNet-C-bar"),
    ],
)
def test_what_is_recorded_names_the_published_sets_of_what_is_made(side, of_c, of_cbar):
    shape = (1, side, side, 3)

    def published(*names: str) -> str:
        return corrupted_as(shape, True, names)["published"]

    assert published() == published("fog", "spatter") == of_c
    assert published("sparkles", "ripple") == of_cbar
    assert published("sparkles", "fog") == published("fog", "sparkles") == f"{of_c}, {of_cbar}"


def test_images_below_64_px_never_pass_through_jpeg():
    images = np.random.default_rng(0).integers(0, 256, (2, 63, 90, 3), np.uint8)
    np.testing.assert_array_equal(corrupt(images, "gaussian_noise", 3, jpeg=True), corrupt(images, "gaussian_noise", 3))
    assert corrupted_as(images.shape, jpeg=True) == {
        "published": "CIFAR-10-C, CIFAR-100-C",
        "version": 1,
        "jpeg_quality": None,
    }

"""scikit-learn's handwritten digits as 32x32 RGB: a real data set that needs no file and no network."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from fastmagn.data.image_set import ImageSet

_SIDE_PX = 32
_TABLE = "datasets/data/digits.csv.gz"  # in scikit-learn: 64 values and the digit in each row


def load_digits(folder: Path, download: bool) -> ImageSet:
    """The 1,797 digits of 8x8 pixels, enlarged to 32x32: 1,198 training and 599 test images.

    A value v in 0..16 becomes the byte round(255 v / 16), halves rounded up. Each image is then enlarged with Pillow's
    bilinear filter, and its grey is repeated in three channels. Sample i, in scikit-learn's order, is a test image if
    i % 3 == 2: this order mostly cycles through the ten digits, and 3 and 10 have no common factor, so every digit is
    about a tenth of both parts. Mean and standard deviation are computed from the training images.

    Args:
        folder: Not used: the images come with scikit-learn.
        download: Not used.

    Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (its test set).
    """
    table = _read_table()
    small_u8 = ((table[:, :-1].reshape(-1, 8, 8) * 255 + 8) // 16).astype(np.uint8)
    size = (_SIDE_PX, _SIDE_PX)
    grey_u8 = np.stack(
        [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)) for image in small_u8]
    )
    images_u8 = np.repeat(grey_u8[..., None], 3, axis=3)
    labels = table[:, -1]
    is_test = np.arange(len(labels)) % 3 == 2
    train_grey = grey_u8[~is_test] / 255.0
    return ImageSet(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        mean=(float(train_grey.mean()),) * 3,
        std=(float(train_grey.std()),) * 3,
        train_images_u8=images_u8[~is_test],
        train_labels=labels[~is_test],
        test_images_u8=images_u8[is_test],
        test_labels=labels[is_test],
    )


def _read_table() -> np.ndarray:
    """Return int64 [1797, 65]. The file is read without importing scikit-learn, which takes seconds."""
    spec = find_spec("sklearn")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / _TABLE
        if path.is_file():
            return np.loadtxt(path, np.int64, delimiter=",")
    from sklearn.datasets import load_digits as load  # a scikit-learn that keeps them elsewhere

    digits = load()
    return np.column_stack([digits.data, digits.target]).astype(np.int64)

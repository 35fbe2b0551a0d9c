"""The embedded digits against scikit-learn's arrays and an enlargement written out."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

from fastmagn.data import load_images


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", Path("no such folder"))


def enlarge(small: list[list[int]]) -> list[list[int]]:
    """8x8 -> 32x32 bilinearly: output pixel centres at (i + 1/2) / 4 - 1/2, edges repeated, rows first, halves up."""

    def along(line: list[int]) -> list[int]:
        out = []
        for i in range(32):
            eighths = 2 * i + 1 - 4  # the centre's position, in eighths of an input pixel
            low, share = eighths // 8, eighths % 8
            a, b = line[min(max(low, 0), 7)], line[min(max(low + 1, 0), 7)]
            out.append((a * (8 - share) + b * share + 4) // 8)
        return out

    rows = [along(row) for row in small]
    columns = [along([row[x] for row in rows]) for x in range(32)]
    return [[columns[x][y] for x in range(32)] for y in range(32)]


def test_split_is_every_third_sample(digits):
    target = datasets.load_digits().target.tolist()
    assert len(target) == 1797
    assert digits.train_images_u8.shape == (1198, 32, 32, 3)
    assert digits.test_images_u8.shape == (599, 32, 32, 3)
    assert digits.test_labels.tolist() == target[2::3]
    assert digits.train_labels.tolist() == [label for i, label in enumerate(target) if i % 3 != 2]
    assert digits.class_names == tuple("0123456789")


def test_a_scikit_learn_that_keeps_them_elsewhere_has_the_same(digits, monkeypatch):
    monkeypatch.setattr("fastmagn.data.digits._TABLE", "no such file")
    again = load_images("digits", Path())
    np.testing.assert_array_equal(again.train_images_u8, digits.train_images_u8)
    np.testing.assert_array_equal(again.test_images_u8, digits.test_images_u8)
    for part in ("train_labels", "test_labels"):
        labels = getattr(again, part)
        assert labels.dtype == getattr(digits, part).dtype == np.int64
        np.testing.assert_array_equal(labels, getattr(digits, part))


def test_every_class_is_about_a_tenth_of_each_part(digits):
    for labels in (digits.train_labels, digits.test_labels):
        counts = Counter(labels.tolist())
        assert sorted(counts) == list(range(10))
        assert all(0.09 <= count / len(labels) <= 0.11 for count in counts.values())


def test_pixels_equal_an_enlargement_written_out(digits):
    images = datasets.load_digits().images
    test_indices, train_indices = [i for i in range(1797) if i % 3 == 2], [i for i in range(1797) if i % 3 != 2]
    for images_u8, indices in ((digits.test_images_u8, test_indices), (digits.train_images_u8, train_indices)):
        for position in range(0, len(indices), 40):
            bytes_8x8 = [[int(value * 255 / 16 + 0.5) for value in row] for row in images[indices[position]]]
            for channel in range(3):
                assert images_u8[position, :, :, channel].tolist() == enlarge(bytes_8x8)


def test_mean_and_std_are_the_training_images(digits):
    pixels = digits.train_images_u8.astype(np.float64).reshape(-1, 3) / 255
    assert digits.mean == pytest.approx(pixels.mean(axis=0).tolist(), abs=1e-9)
    assert digits.std == pytest.approx(np.sqrt(((pixels - pixels.mean(axis=0)) ** 2).mean(axis=0)).tolist(), abs=1e-9)

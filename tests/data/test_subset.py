"""Subsets of a set that is sorted by class."""

import numpy as np
import pytest

from fastmagn.data.subset import even_subset
from fastmagn.errors import InputError


@pytest.mark.parametrize("num_images", [1, 7, 10, 25, 99, 100])
def test_classes_get_as_many_images_each(num_images: int) -> None:
    labels = np.repeat(np.arange(10), 10)
    rows = even_subset(labels, num_images, seed=3)
    counts = np.bincount(labels[rows], minlength=10)
    assert rows.dtype == np.int64
    assert np.all(np.diff(rows) > 0)
    assert counts.sum() == num_images
    assert counts.max() - counts.min() <= 1


def test_a_small_class_is_used_up_and_the_others_share_the_rest() -> None:
    labels = np.array([4] * 3 + [7] * 100 + [9] * 100)
    counts = np.bincount(labels[even_subset(labels, 43, seed=0)], minlength=10)
    assert counts[[4, 7, 9]].tolist() == [3, 20, 20]


def test_it_is_a_pure_function_of_the_labels_the_number_and_the_seed() -> None:
    labels = np.repeat(np.arange(5), 40)
    first = even_subset(labels, 12, seed=1)
    np.testing.assert_array_equal(first, even_subset(labels, 12, seed=1))
    assert not np.array_equal(first, even_subset(labels, 12, seed=2))
    assert set(first) <= set(even_subset(labels, 57, seed=1))


def test_the_seed_draws_which_images_and_which_classes_have_one_more() -> None:
    labels = np.repeat(np.arange(4), 25)
    rows = [even_subset(labels, 5, seed) for seed in range(400)]
    drawn = np.bincount(np.concatenate(rows), minlength=100)
    larger = np.bincount([np.bincount(labels[row]).argmax() for row in rows], minlength=4)
    # 2000 draws of 100 images: 20 each, standard deviation 4.4; 400 of 4 classes: 100 each, standard deviation 8.7.
    assert drawn.min() > 2
    assert drawn.max() < 42
    assert np.all(np.abs(larger - 100) < 44)


@pytest.mark.parametrize("num_images", [0, -1, 11])
def test_a_number_out_of_range_is_named(num_images: int) -> None:
    with pytest.raises(InputError, match=rf"num_images: got {num_images}; expected 1..10"):
        even_subset(np.zeros(10, np.int64), num_images, seed=0)

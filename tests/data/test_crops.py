"""Random resized crops: torchvision's distribution, and the boxes in plain Python from the published Philox."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from fastmagn_kernels.random import crops, rng
from tests.helpers.philox import philox_reference

RATIO = (3 / 4, 4 / 3)


def drawn(indices, epoch, seed, sizes, min_area) -> np.ndarray:
    boxes = np.empty((len(indices), 4), np.int64)
    indices, sizes = np.asarray(indices, np.int64), np.asarray(sizes, np.int64).reshape(-1, 2)
    crops.fill_crops(indices, epoch, *rng.key_words(seed), sizes, float(min_area), boxes)
    return boxes


def measures(boxes: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    top, left, box_height, box_width = boxes.T
    return {
        "area": box_height * box_width / (height * width),
        "ratio": box_width / box_height,
        "centre_y": top + box_height / 2,
        "centre_x": left + box_width / 2,
    }


@pytest.mark.parametrize(
    ("height", "width", "min_area"), [(375, 500, 0.08), (500, 375, 0.08), (224, 224, 0.5), (90, 600, 0.08)]
)
def test_the_distribution_is_torchvisions(height, width, min_area):
    count = 4000
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = [RandomResizedCrop.get_params(image, [min_area, 1.0], list(RATIO)) for _ in range(count)]
    ours = drawn(np.arange(count), 1, 5, np.tile([height, width], (count, 1)), min_area)
    expected = measures(np.array(theirs), height, width)
    for name, values in measures(ours, height, width).items():
        # With a chance of 1e-4 each that equal distributions fail; the draws are fixed, so it passes always or never.
        assert ks_2samp(values, expected[name]).pvalue > 1e-4, name


def reference_box(index: int, epoch: int, seed: int, height: int, width: int, min_area: float) -> tuple[int, ...]:
    for attempt in range(10):
        words = philox_reference([attempt, 10 << 24, index, epoch], [seed & 0xFFFFFFFF, seed >> 32])
        area = height * width * (min_area + (1 - min_area) * words[0] / 2**32)
        ratio = math.exp(math.log(4 / 3) * (2 * words[1] / 2**32 - 1))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return words[2] * (height - h + 1) // 2**32, words[3] * (width - w + 1) // 2**32, h, w
    # torchvision's fallback.
    w, h = width, height
    if width / height < min(RATIO):
        h = round(w / min(RATIO))
    elif width / height > max(RATIO):
        w = round(h * max(RATIO))
    return (height - h) // 2, (width - w) // 2, h, w


@given(
    index=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 2**32 - 2),
    seed=st.integers(0, 2**64 - 1),
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    min_area=st.floats(0.01, 1),
)
def test_boxes_are_those_of_plain_python_and_lie_within(index, epoch, seed, size, min_area):
    box = drawn([index], epoch, seed, [size], min_area)[0].tolist()
    assert box == list(reference_box(index, epoch, seed, *size, min_area))
    top, left, height, width = box
    assert 0 <= top <= top + height <= size[0]
    assert 0 <= left <= left + width <= size[1]
    assert min(height, width) >= 1


def test_what_never_fits_is_cut_from_the_centre():
    assert drawn([0, 0], 0, 0, [[10, 1000], [1000, 10]], 1.0).tolist() == [[0, 493, 10, 13], [493, 0, 13, 10]]


def test_a_box_depends_on_its_own_sample_only():
    sizes = np.random.default_rng(0).integers(300, 500, (50, 2))
    whole = drawn(np.arange(50), 3, 9, sizes, 0.08)
    some = np.array([40, 3, 17])
    np.testing.assert_array_equal(drawn(some, 3, 9, sizes[some], 0.08), whole[some])
    assert (drawn(np.arange(50), 4, 9, sizes, 0.08) != whole).any(axis=1).all()

"""Images as others hold them, to a thread's planar row and back, against NumPy."""

import numpy as np
import pytest
from numba import njit

from fastmagn.augment.pixel_range import HIGHEST, LOWEST, TOLERANCE
from fastmagn_kernels.augmix_cpu.forms import Forms, is_within, load_image, round_to_levels, store_image
from fastmagn_kernels.augmix_cpu.layout import take_values
from fastmagn_kernels.augmix_cpu.operations import make_scratch

SIZES = [(1, 1), (5, 7), (32, 32), (33, 31)]  # the last two have more than one block of 512 pixels


@njit
def _load(i, source, low, high, rows):
    return load_image(i, source, low, high, rows)


@njit
def _store(row, i, target, pixels, mixed):
    store_image(row, i, target, pixels, mixed)


def form_of(images: np.ndarray, planar: bool) -> Forms:
    """uint8 or float32 [B, C, H, W] as kernels take it."""
    values = (images if planar else images.transpose(0, 2, 3, 1)).reshape(len(images), -1).copy()
    is_levels = images.dtype == np.uint8
    none = np.empty((0, 0), np.float32 if is_levels else np.uint8)
    return Forms(values if is_levels else none, none if is_levels else values, planar, images.shape[1])


def test_rounding_is_that_of_numpy_with_ties_to_even():
    halves = (np.arange(-1, 256) + 0.5).astype(np.float32) / np.float32(255)
    near = [np.nextafter(halves, np.float32(side)) for side in (-1, 2)]
    values = np.concatenate([halves, *near, np.linspace(LOWEST, HIGHEST, 10_001, dtype=np.float32)])
    made = np.empty(values.size, np.uint8)
    round_to_levels(values, made)
    np.testing.assert_array_equal(made, np.rint(values * np.float32(255)).clip(0, 255).astype(np.uint8))


def test_the_bounds_are_the_outermost_floats_within_the_tolerance():
    assert float(LOWEST) >= -TOLERANCE > float(np.nextafter(LOWEST, np.float32(-1)))
    assert float(HIGHEST) <= 1 + TOLERANCE < float(np.nextafter(HIGHEST, np.float32(2)))
    for size in (1, 7, 64, 1000):
        values = np.linspace(LOWEST, HIGHEST, size, dtype=np.float32)
        assert is_within(values, LOWEST, HIGHEST)
        outside = np.nextafter(LOWEST, np.float32(-1)), np.nextafter(HIGHEST, np.float32(2)), np.nan, np.inf, -np.inf
        for value in outside:
            for place in (0, size // 2, size - 1):
                spoilt = values.copy()
                spoilt[place] = value
                assert not is_within(spoilt, LOWEST, HIGHEST)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("planar", [True, False])
def test_values_are_taken_in_either_order(size, planar):
    image = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    expected = (image if planar else image.transpose(1, 2, 0)).reshape(-1)
    for start in range(0, expected.size, 3 * 17):
        count = min(3 * 17, expected.size - start)
        made = np.full(60, 9, np.uint8)
        take_values(image.reshape(-1), start, count, planar, made, 4)
        np.testing.assert_array_equal(made[4 : 4 + count], expected[start : start + count])
        assert (made[:4] == 9).all()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("channels", "planar"), [(3, True), (3, False), (1, True)])
def test_images_are_loaded_and_stored(size, channels, planar):
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 256, (2, channels, *size), dtype=np.uint8)
    floats = (levels + rng.uniform(-0.49, 0.49, levels.shape)).astype(np.float32) / np.float32(255)
    for images in (levels, floats):
        scratch = make_scratch(*size)
        assert _load(1, form_of(images, planar), LOWEST, HIGHEST, scratch.rows)
        row = scratch.rows[0].reshape(3, *size)
        np.testing.assert_array_equal(row, np.broadcast_to(levels[1], row.shape))
        for to_planar in (True, False) if channels == 3 else (True,):
            target = form_of(np.zeros_like(images), to_planar)
            _store(scratch.rows[0], 1, target, scratch.pixels, scratch.mixed)
            expected = levels if images is levels else levels.astype(np.float32) / np.float32(255)
            made = target.levels if images is levels else target.floats
            filled = form_of(expected, to_planar)
            np.testing.assert_array_equal(made[1], (filled.levels if images is levels else filled.floats)[1])
            assert not made[0].any()


def test_an_image_out_of_range_is_not_loaded():
    images = np.full((1, 3, 4, 4), 0.5, np.float32)
    images[0, 2, 3, 3] = 1.1
    rows = make_scratch(4, 4).rows
    assert not _load(0, form_of(images, False), LOWEST, HIGHEST, rows)
    assert not rows.any()

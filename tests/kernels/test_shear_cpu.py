"""The CPU engine's shears in fixed point against Pillow and float64, where rounding is hardest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmagn_kernels.augmix_cpu.shear import fixed_point, interpolate_fixed
from fastmagn_kernels.random import draws
from tests.helpers.operations import run_kernel, run_pillow

# Distances to the hard fractions: none, Pillow's own rounding, the engine's limit of doubt, its last bit.
NEAR = [0.0, *(sign * 2.0**-bits for bits in (53, 50, 44, 33, 31, 29, 28, 27, 26, 24, 23, 22) for sign in (1, -1))]
BOTH = pytest.mark.parametrize("op", [draws.SHEAR_X, draws.SHEAR_Y], ids=["x", "y"])


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 999 + width).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def assert_equals_pillow(op: int, amount: float, images: np.ndarray) -> None:
    expected = run_pillow(op, amount, images)
    np.testing.assert_array_equal(run_kernel(op, amount, images), expected, err_msg=f"shear {amount!r}")


@BOTH
@settings(max_examples=300, deadline=None)
@given(amount=st.floats(-1.5, 1.5), height=st.integers(1, 40), width=st.integers(1, 40))
def test_any_shear_of_any_size_equals_pillow(op, amount, height, width):
    assert_equals_pillow(op, amount, noise(1, height, width))


@BOTH
def test_shears_as_they_are_drawn_equal_pillow(op, pictures):
    images = pictures(32, 32)
    for level in np.random.default_rng(op).uniform(0.1, 10, 400):
        assert_equals_pillow(op, draws.magnitude_of(op, level, level * 64 % 1 < 0.5, 32, 32), images)


@BOTH
@pytest.mark.parametrize("near", NEAR)
def test_lines_with_hard_fractions_equal_pillow(op, near):
    """One line's shift is a whole number of d-ths, with which the difference d of neighbours ends on an integer, or of
    halves, where the line's end comes from the image's border; or next to that."""
    images = noise(2, 32, 32)
    images[:, ::2] //= 16
    rng = np.random.default_rng(int(abs(near) * 2**53))
    for denominator in (1, 2, 3, 5, 7, 16, 51, 85, 100, 128, 211, 254, 255):
        line = rng.integers(32)
        shift = rng.integers(1, 4 * denominator) / denominator + near
        for sign in (1, -1):
            assert_equals_pillow(op, sign * shift / (line + 0.5), images)


@BOTH
@pytest.mark.parametrize("size", [(3, 1100), (1100, 3), (40, 257), (300, 40), (700, 900)], ids=str)
def test_long_images_and_steep_shears_equal_pillow(op, size):
    """Blocks of one long row, many blocks, more whole shifts than 8 bits tell apart, all black, and beyond int32."""
    images = noise(1, *size)
    for amount in (0.0, 0.0123, -0.3, 0.2999, 0.7, -1.1, 40.3, -1e9, 1e300):
        assert_equals_pillow(op, amount, images)


def test_undoubted_interpolation_is_pillows_for_all_neighbours():
    """All 65,536 pairs, in blocks as long as two rows of CIFAR; float64 as Pillow has it."""
    rng = np.random.default_rng(0)
    first, second = (part.ravel().astype(np.uint8) for part in np.divmod(np.arange(65536), 256))
    inside, out = np.full(64, 255, np.uint8), np.empty(64, np.uint8)
    hard = [n / d + near for d in (3, 64, 255) for n in (1, d - 1) for near in NEAR]
    easy = rng.uniform(2.0**-28, 1 - 2.0**-28, 10)
    doubted = {}
    for fraction in [*hard, *easy, 2.0**-28, 1 - 2.0**-28]:
        expected = (first + (second.astype(np.float64) - first) * fraction).astype(np.uint8)
        fractions = np.full(64, fixed_point(fraction), np.int32)
        blocks = range(0, 65536, 64)
        doubts = 0
        for k in blocks:
            doubt = interpolate_fixed(first[k : k + 64], second[k : k + 64], fractions, inside, out, 64)
            assert doubt or (out == expected[k : k + 64]).all(), fraction
            doubts += doubt
        doubted[fraction] = doubts / len(blocks)
    assert np.mean([doubted[fraction] for fraction in easy]) < 0.01  # else nothing was gained
    assert doubted[1 / 3] > 0.5


def test_black_is_black_whatever_the_fraction():
    fractions = np.full(64, fixed_point(0.4), np.int32)
    values, out = np.full(64, 200, np.uint8), np.full(64, 173, np.uint8)
    assert not interpolate_fixed(values, values, fractions, np.zeros(64, np.uint8), out, 64)
    assert (out == 0).all()

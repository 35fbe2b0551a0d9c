"""The CPU engine's bilinear transforms, by tiles and in float32, against Pillow, where rounding is hardest."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastmagn.augment.operations import OPERATIONS
from fastmagn_kernels.augmix_cpu import bilinear, operations
from fastmagn_kernels.augmix_cpu.geometry import packed
from fastmagn_kernels.compiling import jit
from fastmagn_kernels.pixel import rotation_table
from fastmagn_kernels.random import draws
from tests.helpers.operations import run_kernel, run_pillow

(ROTATE,) = (op for op in OPERATIONS if op.id == draws.ROTATE)
# Distances to an integer: none, Pillow's own rounding, about a unit of the engine's positions, more.
NEAR = [0.0, *(sign * 2.0**-bits for bits in (50, 44, 33, 26, 25, 24, 23, 22, 21, 13) for sign in (1, -1))]


def hard_images(height: int, width: int) -> np.ndarray:
    """Noise, noise of two values, flat pieces of two values, a gradient, and one value each: uint8 [5, H, W, 3]."""
    rng = np.random.default_rng(height * 9999 + width)
    y, x = np.mgrid[:height, :width]
    images = np.empty((5, height, width, 3), np.uint8)
    images[0] = rng.integers(0, 256, images[0].shape)
    images[1] = 255 * rng.integers(0, 2, images[1].shape)
    images[2] = 255 * ((x // 5 + y // 7)[..., None] % np.array([2, 3, 5]) == 0)
    images[3] = (x[..., None] * np.array([1, 2, 0]) + y[..., None] * np.array([1, 0, 3])) // 2 % 256
    images[4] = (255, 0, 77)
    return images


def transformed(image: np.ndarray, matrix: tuple[float, ...], fill: tuple[int, int, int]) -> np.ndarray:
    height, width, _ = image.shape
    source = np.ascontiguousarray(image.transpose(2, 0, 1)).ravel()
    target, scratch = np.full_like(source, 173), operations.make_scratch(height, width)
    bilinear.transform_bilinear(source, target, height, width, matrix, packed(*fill), scratch)
    return target.reshape(3, height, width).transpose(1, 2, 0)


def assert_equals_pillow(image: np.ndarray, matrix: tuple[float, ...], fill: tuple[int, int, int] = (0, 0, 0)) -> None:
    expected = Image.fromarray(image).transform(
        image.shape[1::-1], Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill
    )
    np.testing.assert_array_equal(transformed(image, matrix, fill), np.asarray(expected), err_msg=f"{matrix}")


@pytest.mark.parametrize("size", [(65, 97), (131, 67), (300, 211)], ids=str)
def test_every_angle_that_augmix_draws_equals_pillow(size):
    """Up to severity 3 and 10."""
    images = hard_images(*size)
    drawn = {int(ROTATE.magnitude(level, *size)) for level in np.linspace(0.1, 9.9999, 500)}
    assert drawn == set(range(30))
    for degrees in range(-30, 31):
        expected = run_pillow(draws.ROTATE, degrees, images)
        np.testing.assert_array_equal(run_kernel(draws.ROTATE, degrees, images), expected, err_msg=f"{degrees} degrees")


@pytest.mark.parametrize("degrees", [-9, 1, 29])
def test_rotations_of_1024_px_equal_pillow(degrees):
    images = hard_images(1024, 1024)
    np.testing.assert_array_equal(run_kernel(draws.ROTATE, degrees, images), run_pillow(draws.ROTATE, degrees, images))


@pytest.mark.parametrize("size", [(8, 8), (15, 40), (16, 16), (17, 23), (121, 200), (200, 121)], ids=str)
def test_the_base_transforms_angles_equal_pillow(size):
    """1/64 degree is the smallest: some rows and columns of images of odd sizes then come from almost whole pixels."""
    images = hard_images(*size)
    angles = [*range(-12, 13), *range(-30 * 64, 30 * 64 + 1, 131)]
    made = np.empty(images[0].size, np.uint8)
    scratch = operations.make_scratch(*size)
    for angle in angles:
        for image, expected in zip(images, run_pillow(draws.ROTATE, angle / 64, images), strict=True):
            source = np.ascontiguousarray(image.transpose(2, 0, 1)).ravel()
            bilinear.rotate(source, made, *size, angle, rotation_table(), scratch)
            np.testing.assert_array_equal(made.reshape(3, *size).transpose(1, 2, 0), expected, err_msg=f"{angle}/64")


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    turn=st.floats(-math.pi, math.pi),
    scales=st.tuples(st.floats(0.01, 12), st.floats(0.01, 12)),
    shear=st.floats(-2, 2),
    moved=st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)),
    fill=st.tuples(*[st.integers(0, 255)] * 3),
    picture=st.integers(0, 4),
)
def test_any_affine_transform_equals_pillow(height, width, turn, scales, shear, moved, fill, picture):
    """Through windows, pixel by pixel of a tile, and without tiles: steep ones, and small images."""
    cosine, sine = math.cos(turn), math.sin(turn)
    xx, xy = scales[0] * cosine, scales[0] * (sine + shear * cosine)
    yx, yy = -scales[1] * sine, scales[1] * (cosine - shear * sine)
    offset_x = width / 2 - xx * width / 2 - xy * height / 2 + moved[0] * width
    offset_y = height / 2 - yx * width / 2 - yy * height / 2 + moved[1] * height
    assert_equals_pillow(hard_images(height, width)[picture], (xx, xy, offset_x, yx, yy, offset_y), fill)


@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("size", [(33, 40), (12, 9)], ids=str)
def test_positions_near_integers_and_borders_equal_pillow(size, near):
    """Every pixel is near the next one, the border's middle, or half a pixel from it, where the outside begins."""
    for image in hard_images(*size):
        for offset in (-2.5, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0):
            assert_equals_pillow(image, (1.0, 0.0, offset + near, 0.0, 1.0, 0.25), (1, 2, 3))
            assert_equals_pillow(image, (1.0, 0.0, 0.25, 0.0, 1.0, offset + near), (1, 2, 3))
            assert_equals_pillow(image, (1.0, near / 16, offset, near / 16, 1.0, offset), (1, 2, 3))


@pytest.mark.parametrize("matrix", [(1e300, 0, 0, 0, 1, 0), (0, 0, 5, 0, 0, 5), (1, 0, -1e9, 0, 1, 1e9)], ids=str)
def test_degenerate_transforms_equal_pillow(matrix):
    assert_equals_pillow(hard_images(40, 50)[0], tuple(map(float, matrix)), (9, 8, 7))


@jit
def _interpolate(fractions, tile):
    bilinear.interpolate_tile(fractions, tile)


def test_undoubted_interpolation_is_float64s():
    """Random neighbours, many of them equal, and fractions at which the result is near an integer."""
    rng = np.random.default_rng(0)
    scratch = operations.make_scratch(8, 8)
    tile, fractions, pixels = scratch.tile, scratch.fractions, bilinear.PIXELS
    doubted = []
    for turn in range(2000):
        found = rng.integers(0, 256, (3, 4, pixels), dtype=np.uint8) // (1 if turn % 2 else 100)
        hard = rng.integers(0, 256, (2, pixels)) / rng.choice([1, 3, 7, 100, 128, 255])
        exact = (hard % 1 if turn % 4 == 0 else rng.random((2, pixels))).astype(np.float32).astype(np.float64)
        tile[: found.size], fractions[:] = found.ravel(), exact.ravel()
        tile[bilinear.EDGES : bilinear.EDGES + pixels] = 0
        _interpolate(fractions, tile)
        top, bottom = (found[:, k] + (found[:, k + 1].astype(np.float64) - found[:, k]) * exact[0] for k in (0, 2))
        expected = (top + (bottom - top) * exact[1]).astype(np.uint8)
        doubts = tile[bilinear.DOUBTS : bilinear.DOUBTS + pixels] != 0
        made = tile[bilinear.MADE : bilinear.MADE + 3 * pixels].reshape(3, pixels)
        np.testing.assert_array_equal(made[:, ~doubts], expected[:, ~doubts])
        if turn % 4 == 1:
            doubted.append(doubts.mean())
    assert np.mean(doubted) < 0.002  # else nothing was gained

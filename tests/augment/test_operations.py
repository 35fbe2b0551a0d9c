"""Every operation of the compiled engine against Pillow, to the bit, at every magnitude that can be drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from fastmagn.augment.operations import NUM_AUGMIX_OPERATIONS, OPERATIONS
from fastmagn_kernels.augmix_cpu import bilinear, operations
from fastmagn_kernels.augmix_cpu.rotate import MAX_DEGREES, digits, fixed_weights, has_vectors, make_rotations
from fastmagn_kernels.pixel import equalize_quotient, rotation_table, unit
from fastmagn_kernels.random import draws
from tests.helpers.operations import magnitudes, run_kernel, run_pillow
from tests.helpers.processes import run

# 1 to 3 px: borders only; 20 x 33: no multiple of anything; 224 x 180: coordinates beyond 8 bits.
SIZES = [(32, 32), (20, 33), (33, 20), (1, 1), (1, 7), (2, 5), (3, 3)]
IDS = {op.name: op.id for op in OPERATIONS}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_operation_equals_pillow(op, size, pictures):
    images = pictures(*size)
    for magnitude in magnitudes(op, *size):
        expected = run_pillow(op.id, magnitude, images)
        np.testing.assert_array_equal(run_kernel(op.id, magnitude, images), expected, err_msg=f"magnitude {magnitude}")


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_operation_equals_pillow_on_large_images(op, pictures):
    images = pictures(224, 180)[[0, 6, 8]]
    all_magnitudes = magnitudes(op, 224, 180)
    for magnitude in all_magnitudes[:: max(1, len(all_magnitudes) // 8)]:
        expected = run_pillow(op.id, magnitude, images)
        np.testing.assert_array_equal(run_kernel(op.id, magnitude, images), expected, err_msg=f"magnitude {magnitude}")


@pytest.mark.parametrize(
    "size",
    [(1, 700), (3, 513), (2, 1030), (600, 1), (515, 2), (40, 171), (200, 1030)],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_operation_equals_pillow_on_long_images(op, size):
    """Rows longer than the engine's block of 512 pixels, blocks that end within the image, hundreds of rows in one."""
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    all_magnitudes = magnitudes(op, *size)
    for magnitude in all_magnitudes[:: max(1, len(all_magnitudes) // 16)]:
        expected = run_pillow(op.id, magnitude, images)
        np.testing.assert_array_equal(run_kernel(op.id, magnitude, images), expected, err_msg=f"magnitude {magnitude}")


def test_luma_of_every_colour_equals_pillow():
    grey, side = np.empty(1 << 16, np.uint8), 256
    green, blue = (plane.ravel() for plane in np.mgrid[:side, :side].astype(np.uint8))
    for red in range(256):
        planes = np.concatenate([np.full_like(green, red), green, blue])
        operations.fill_luma(planes, 0, grey.size, grey)
        image = Image.fromarray(planes.reshape(3, side, side).transpose(1, 2, 0).copy())
        np.testing.assert_array_equal(grey, np.asarray(image.convert("L")).ravel(), err_msg=f"red {red}")


def test_smoothing_of_every_sum_equals_pillow():
    """Blocks of 3 x 3 pixels in which the sum of the rim and five times the centre takes each value, 0..3315."""
    sums = np.arange(13 * 255 + 1)
    centres = (sums + 6) // 13
    rims = (sums - 5 * centres)[:, None] * np.arange(1, 9) // 8
    blocks = np.insert(np.diff(rims, axis=1, prepend=0), 4, centres, axis=1).astype(np.uint8).reshape(-1, 3, 3)
    np.testing.assert_array_equal(blocks.sum(axis=(1, 2)) + 4 * centres, sums)
    column = blocks.reshape(-1, 3)
    expected = np.asarray(Image.fromarray(column).filter(ImageFilter.SMOOTH))[1::3, 1]
    smoothed = np.empty(1, np.uint8)
    for block, value in zip(blocks, expected, strict=True):
        operations.smooth_block(*block, smoothed, 1)
        assert smoothed[0] == value


@pytest.mark.parametrize("size", [(32, 32), (20, 33)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_rotation_equals_pillow_at_every_quarter_degree(size, pictures):
    images = pictures(*size)[[0, 7, 8]]
    height, width = size
    scratch = operations.make_scratch(height, width)
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    made = np.empty_like(planes)
    for angle in range(-30 * 64, 30 * 64 + 1, 16):
        for source, target in zip(planes, made, strict=True):
            bilinear.rotate(source, target, height, width, angle, rotation_table(), scratch)
        expected = run_pillow(draws.ROTATE, angle / 64, images).transpose(0, 3, 1, 2).reshape(planes.shape)
        np.testing.assert_array_equal(made, expected, err_msg=f"{angle}/64 degrees")


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (28, 28), (64, 64), (24, 40), (128, 8)], ids=str)
def test_rotation_by_whole_degrees_equals_pillow_with_and_without_a_plan(size, pictures):
    images = pictures(*size)
    for degrees in range(-MAX_DEGREES, MAX_DEGREES + 1):
        expected = run_pillow(draws.ROTATE, degrees, images)
        np.testing.assert_array_equal(run_kernel(draws.ROTATE, degrees, images), expected, err_msg=f"{degrees} degrees")


def test_plans_are_made_where_the_cpu_can_follow_them():
    planned = make_rotations(32, 32).planned
    assert planned[MAX_DEGREES - 20 : MAX_DEGREES + 21].all() == has_vectors()
    assert not make_rotations(224, 224).planned.any()
    assert not make_rotations(20, 33).planned.any()


@pytest.mark.process
def test_a_cpu_without_the_instructions_rotates_without_plans(tmp_path):
    code = """
import numpy as np
from PIL import Image
from fastmagn_kernels.augmix_cpu import operations, rotate
rotations = rotate.make_rotations(16, 16)
assert not rotate.has_vectors()
assert not rotations.planned.any()
image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
source, target = np.ascontiguousarray(image.transpose(2, 0, 1)).ravel(), np.empty(768, np.uint8)
scratch = operations.make_scratch(16, 16)
rotate.rotate_degrees(source, target, 16, 16, 7, rotations, scratch)
expected = np.asarray(Image.fromarray(image).rotate(7, resample=Image.Resampling.BILINEAR))
assert (target.reshape(3, 16, 16).transpose(1, 2, 0) == expected).all()
"""
    run(["-c", code], tmp_path, NUMBA_CPU_NAME="generic")


@pytest.mark.parametrize("degrees", [-29, -8, -1, 0, 1, 7, 30])
def test_fixed_weights_are_bilinear_and_add_up(degrees):
    positions, fixed = fixed_weights(degrees, 32, 32)
    assert set(fixed.sum(axis=1)) <= {0, 1 << 22}
    assert (fixed >= 0).all()
    place = digits(fixed).astype(np.int64) @ [65536, 256, 1]
    np.testing.assert_array_equal(place, fixed)
    # The weighted mean of the neighbours' places is where the rotated pixel comes from, away from the border.
    radians = np.deg2rad(degrees)
    y, x = np.divmod(np.arange(1024), 32) - np.array([[15.5], [15.5]])
    source_x = np.cos(radians) * x - np.sin(radians) * y + 15.5
    source_y = np.sin(radians) * x + np.cos(radians) * y + 15.5
    inner = (np.minimum(source_x, source_y) > 0) & (np.maximum(source_x, source_y) < 31)
    made_y, made_x = (np.stack(np.divmod(positions, 32)) * fixed).sum(axis=2) / 2**22
    np.testing.assert_allclose(made_x[inner], source_x[inner], atol=1e-5)
    np.testing.assert_allclose(made_y[inner], source_y[inner], atol=1e-5)


def test_unit_is_the_quotient_for_every_value():
    values = np.arange(256, dtype=np.uint8)
    expected = values.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal([unit(value) for value in values], expected)


@pytest.mark.slow
def test_autocontrast_equals_pillow_for_every_pair_of_extremes():
    """All values from low to high, for all low <= high; three pairs an image, one a channel."""
    pairs = [(low, high) for low in range(256) for high in range(low, 256)]
    for k in range(0, len(pairs) - 2, 3):
        ramp = np.arange(256)[None, :, None]
        low, high = np.array(pairs[k : k + 3]).T
        image = np.clip(ramp, low, high).astype(np.uint8)[None]
        expected = run_pillow(draws.AUTOCONTRAST, 0, image)
        np.testing.assert_array_equal(run_kernel(draws.AUTOCONTRAST, 0, image), expected, err_msg=f"{low} {high}")


@given(st.integers(0, 2**31 - 2), st.integers(1, 2**31 // 255))
def test_equalize_quotient_is_the_integer_division(cumulative, step):
    for count in (cumulative, cumulative // step * step, max(cumulative // step * step - 1, 0), 255 * step - 1):
        assert equalize_quotient(count, 1.0 / step) == min(count // step, 255)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_operation_equals_pillow_on_cifar(op, cifar_images):
    """1,000 images, each with one magnitude; all magnitudes in turn."""
    for image, magnitude in zip(cifar_images, np.resize(magnitudes(op, 32, 32), 1000), strict=True):
        images = image[None]
        np.testing.assert_array_equal(run_kernel(op.id, magnitude, images), run_pillow(op.id, magnitude, images))


@given(st.floats(0.1, 9.999), st.booleans(), st.sampled_from(OPERATIONS), st.integers(1, 600), st.integers(1, 600))
def test_kernel_has_the_magnitudes_of_the_table(level, negative, op, height, width):
    unsigned = op.magnitude(level, height, width)
    expected = -unsigned if negative and op.signed else unsigned
    assert draws.magnitude_of(op.id, level, negative, height, width) == expected


def test_table_is_augmixs():
    names = "autocontrast equalize posterize rotate solarize shear_x shear_y translate_x translate_y"
    assert [op.name for op in OPERATIONS[:NUM_AUGMIX_OPERATIONS]] == names.split()
    assert [op.name for op in OPERATIONS[NUM_AUGMIX_OPERATIONS:]] == ["color", "contrast", "brightness", "sharpness"]
    assert [op.id for op in OPERATIONS] == list(range(len(OPERATIONS)))
    assert [op.name for op in OPERATIONS if op.signed] == ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]
    assert {name: getattr(draws, name.upper()) for name in IDS} == IDS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("posterize", {1, 2, 3, 4}),
        ("rotate", set(range(30))),
        ("solarize", set(range(1, 255))),  # the lowest level, 0.1, is 256 - int(2.56)
        ("translate_x", set(range(15))),  # 45 px wide: int(level * 15 / 10)
        ("translate_y", set(range(10))),  # 30 px high
    ],
)
def test_every_integer_magnitude_can_be_drawn(name, expected):
    op = OPERATIONS[IDS[name]]
    assert {op.magnitude(level, 30, 45) for level in np.linspace(0.1, 9.9999, 20_000)} == expected

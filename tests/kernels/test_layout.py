"""Pixels to planes and back, mirrored rows and streamed floats, against numpy's own."""

import numpy as np
import pytest

from fastmagn_kernels.augmix_cpu import layout


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (7, 9), (8, 8), (5, 100), (3, 43)], ids=str)
def test_pixels_to_planes_and_back(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    planes = np.empty(image.size, np.uint8)
    layout.pixels_to_planes(image.reshape(-1), planes)
    np.testing.assert_array_equal(planes, image.transpose(2, 0, 1).ravel())
    num_pixels = size[0] * size[1]
    for start in {0, num_pixels // 3}:
        pixels = np.full(3 * num_pixels + 10, 7, np.uint8)
        layout.planes_to_pixels(planes, start, num_pixels - start, pixels, 5)
        end = 5 + 3 * (num_pixels - start)
        np.testing.assert_array_equal(pixels[5:end], image.reshape(-1)[3 * start :])
        assert (pixels[:5] == 7).all()
        assert (pixels[end:] == 7).all()


@pytest.mark.parametrize("width", [1, 3, 15, 16, 17, 32, 33, 224])
def test_mirror(width):
    rows = np.random.default_rng(1).integers(0, 256, (6, width), dtype=np.uint8)
    made = np.empty_like(rows)
    layout.mirror(rows.ravel(), made.reshape(-1), width)
    np.testing.assert_array_equal(made, rows[:, ::-1])


@pytest.mark.parametrize("offset", [0, 1, 15, 16])
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1536])
def test_stream_writes_so_many_floats_and_no_more(count, offset):
    source = np.random.default_rng(2).random(2000, np.float32)
    target = np.zeros(2000, np.float32)
    layout.stream(source, target[offset:], count)
    np.testing.assert_array_equal(target[offset : offset + count], source[:count])
    assert not target[:offset].any()
    assert not target[offset + count :].any()

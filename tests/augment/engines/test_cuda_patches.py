"""Erased areas and noise patches on CUDA: on the device where there is one, else from their PTX (tests/ptx)."""

import re

import numpy as np
import pytest
import torch

from fastmagn.augment.params import ViewParams, sample_view_params
from fastmagn.augment.views import VIEW_DTYPES, make_views
from fastmagn.config.schema import AugmentConfig
from tests.helpers.tiers import slow, slow_but
from tests.helpers.views import CLEAN_ONLY, as_tensor

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
from tests.augment.engines.cuda_patch_runs import run_after_policy, source
from tests.augment.engines.cuda_runs import FromPtx, RunKernel
from tests.ptx.arguments import compile_once

MEAN = (0.2, 0.4, 0.6)
STILL = {"crop_padding_px": 0, "rotation_deg": 0.0}
ERASED = {"erase_probability": 1.0, "erase_max_area": 0.8}
ERASINGS = {
    "zeros": ERASED,
    "mean": {**ERASED, "erase_fill": "mean"},
    "noise": {**ERASED, "erase_fill": "noise"},
    "square": {"erase_probability": 1.0, "erase_square_px": 5, "erase_fill": "mean"},
    "square of noise": {"erase_probability": 1.0, "erase_square_px": 256, "erase_fill": "noise"},
    "some": {**ERASED, "erase_probability": 0.5, "erase_fill": "noise"},
}
STRENGTHS = {
    "linf": 0.3,
    "l2": 8.0,
    "l1": 500.0,
    "l05": 1e6,
    "impulse": 0.6,
    "gaussian": 0.5,
}
PATCHES = {noise: {f"patch_{noise}": strength} for noise, strength in STRENGTHS.items()}
TOGETHER = {f"patch_{noise}": strength for noise, strength in STRENGTHS.items()} | {"patch_probability": 0.8}
SIZES = [(1, 1), (2, 5), (20, 33), (1, 300), (300, 1), (32, 32)]


@pytest.fixture(scope="session")
def cuda(request) -> RunKernel:
    return FromPtx(request.getfixturevalue("ptx_builder"))


def params_of(settings: dict, indices: np.ndarray, size: tuple[int, int], seed: int = 3) -> ViewParams:
    return sample_view_params(seed, 1, indices, CLEAN_ONLY, AugmentConfig(**STILL, **settings), size, MEAN)


def images_of(count: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def assert_equals_the_cpu_engine(cuda: RunKernel, images: np.ndarray, params: ViewParams, **options) -> None:
    made, boxes, drawn = run_after_policy(cuda, images, params, **options)
    expected = make_views(as_tensor(images), params, "numba").permute(0, 2, 3, 1)
    torch.testing.assert_close(made, expected.to(made.dtype), rtol=0, atol=0)
    params = params.recipe.params
    has_patch = params.patched[:, 2] > 0
    np.testing.assert_array_equal(boxes, [params.erased, np.where(has_patch[:, None], params.patched, 0)])
    expected = np.stack([params.noise.astype(np.float32), params.strength, params.left_out], 1)
    np.testing.assert_array_equal(drawn, np.where(has_patch[:, None], expected, np.float32(0)))


@pytest.mark.parametrize("size", slow_but(SIZES, (1, 1), (2, 5), (20, 33)), ids=str)
@pytest.mark.parametrize("erasing", ERASINGS)
def test_erased_areas_equal_the_cpu_engines(cuda, erasing, size):
    count = 3 if size == (32, 32) else 6
    params = params_of(ERASINGS[erasing], np.arange(count) * 40_503 + 7, size)
    assert_equals_the_cpu_engine(cuda, images_of(count, size), params)


@pytest.mark.parametrize("clipped", [True, False], ids=["clipped", "not clipped"])
@pytest.mark.parametrize("size", slow_but(SIZES, (1, 1), (2, 5), (20, 33)), ids=str)
@pytest.mark.parametrize("noise", PATCHES)
def test_patches_equal_the_cpu_engines(cuda, noise, size, clipped):
    params = params_of({**PATCHES[noise], "patch_clip": clipped}, np.arange(4) * 40_503 + 7, size)
    assert_equals_the_cpu_engine(cuda, images_of(4, size), params)

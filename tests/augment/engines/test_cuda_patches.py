"""Erased areas and noise patches on CUDA: on the device where there is one, else from their PTX (tests/ptx)."""

import re

import numpy as np
import pytest
import torch

from fastmagn.augment.params import ViewParams, ViewSpec, sample_view_params
from fastmagn.augment.views import VIEW_DTYPES, make_views
from fastmagn.config.schema import AugmentConfig
from tests.helpers.tiers import slow_but
from tests.helpers.views import CLEAN_ONLY, as_tensor

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
from tests.augment.engines.cuda_patch_runs import run_after_policy, source
from tests.augment.engines.cuda_runs import RunKernel, plan, run_views
from tests.augment.engines.test_cuda import cuda, from_ptx, on_the_host
from tests.ptx.arguments import compile_once

__all__ = ["cuda"]

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


@pytest.mark.parametrize("settings", [TOGETHER, {**TOGETHER, **ERASINGS["some"]}], ids=["patches", "erased, too"])
def test_areas_at_every_border(cuda, settings):
    """Of many samples, those whose areas touch a border or two, are narrow, or nearly fill the image."""
    size, indices = (7, 9), np.arange(40_000)
    drawn = params_of({**settings, "patch_min_area": 0.01, "patch_max_area": 1.0}, indices, size).recipe.params
    chosen = []
    for left, top, width, height in (drawn.patched.T, drawn.erased.T):
        right, bottom = left + width == size[1], top + height == size[0]
        there = width * height > 0
        kinds = [left == 0, top == 0, right, bottom, width == 1, height == 1, right & bottom, width >= 8, height >= 6]
        chosen += [np.flatnonzero(kind & there)[:3] for kind in kinds]
        assert not there.any() or all((kind & there).any() for kind in kinds)
    chosen = np.unique(np.concatenate(chosen))
    params = params_of({**settings, "patch_min_area": 0.01, "patch_max_area": 1.0}, chosen, size)
    assert_equals_the_cpu_engine(cuda, images_of(len(chosen), size), params)


@pytest.mark.parametrize("left_out", [0.0, 1.0])
@pytest.mark.parametrize("area", [1e-9, 1.0])
def test_smallest_and_largest_areas_and_shares(cuda, area, left_out):
    extreme = {"patch_min_area": area, "patch_max_area": area, "patch_max_left_out": left_out, "patch_clip": False}
    extreme |= {"erase_probability": 1.0, "erase_min_area": area, "erase_max_area": area}
    for seed, size in ((0, (1, 1)), (2**64 - 1, (5, 4))):
        indices = np.array([2**32 - 1, 0, 2**31, 5, 6, 7, 8])
        params = params_of({**TOGETHER, **extreme, "patch_probability": 1.0}, indices, size, seed)
        assert_equals_the_cpu_engine(cuda, images_of(len(indices), size), params)


@from_ptx
@pytest.mark.parametrize("dtype", VIEW_DTYPES, ids=str)
def test_blocks_of_any_size_dtypes_and_orders(cuda, dtype):
    settings = {**TOGETHER, **ERASINGS["some"]}
    for order, (size, block) in enumerate((((6, 7), (32, 1)), ((9, 8), (32, 32)), ((40, 31), (32, 8)))):
        params = params_of(settings, np.arange(12) + 100 * order, size)
        options = {"dtype": dtype, "block": block, "order": order + 1}
        assert_equals_the_cpu_engine(cuda, images_of(12, size), params, **options)


@from_ptx
@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (225, 225), (224, 180), (2, 1000)], ids=str)
@pytest.mark.parametrize("noise", PATCHES)
def test_large_images(cuda, noise, size):
    params = params_of({**PATCHES[noise], **ERASINGS["noise"]}, np.arange(2) + 9, size)
    assert_equals_the_cpu_engine(cuda, images_of(2, size), params, block=(32, 32), order=2)


def test_kernel_rounds_as_the_cpu_does_and_keeps_everything_in_registers(ptx_builder):
    ptx = compile_once(ptx_builder, *source("float32"), name="after_policy_float32")
    assert not re.findall(r"\bfma\.", ptx)
    assert not re.findall(r"\b(?:mul|add|sub)\.f(?:32|64)", ptx)  # .rn keeps the assembler from fusing them
    assert not re.findall(r"\.approx|\.full|\.ftz", ptx)
    assert not re.findall(r"\.local|\bcall", ptx)


ODD = {
    "square_larger": {"erase_probability": 1.0, "erase_square_px": 256, "erase_fill": "mean"},
    "square_of_one": {"erase_probability": 1.0, "erase_square_px": 1, "erase_fill": "noise"},
    "everything_erased": {"erase_probability": 1.0, "erase_min_area": 1.0, "erase_max_area": 1.0},
    "lowest_thresholds": {"erase_probability": 2**-32, "patch_probability": 2**-32, "patch_l1": 3.0},
    "highest_thresholds": {"erase_probability": 1 - 2**-32, "patch_probability": 1 - 2**-32, "patch_l1": 3.0},
    "no_area": {"patch_min_area": 1e-12, "patch_max_area": 1e-12, "patch_l2": 9.0},
    "strong": {"patch_l2": 1e30, "patch_l1": 1e30, "patch_l05": 1e30, "patch_gaussian": 10.0},
    "weak": {"patch_l2": 1e-30, "patch_l1": 1e-38, "patch_l05": 1e-38, "patch_clip": False},
}


@from_ptx
@pytest.mark.slow
@pytest.mark.parametrize("in_shared", [True, False], ids=["shared", "scratch"])
@pytest.mark.parametrize("settings", ODD.values(), ids=ODD)
def test_odd_recipes_in_the_kernel_of_views(cuda, settings, in_shared):
    spec = ViewSpec(num_augmix_views=1, num_noise_views=1)
    for order, size in enumerate([(1, 1), (3, 4), (1, 40), (9, 8)]):
        augment = AugmentConfig(policy="trivialaugment", mixture_width=1 + order, **settings)
        params = sample_view_params(2**64 - 1, 2**32 - 1, np.arange(7) * 613_566_757, spec, augment, size, MEAN)
        images = images_of(7, size)
        launch = plan(images, params, in_shared)
        expected = on_the_host(images, params)
        for blocks in {launch.blocks, launch.blocks if in_shared else 2}:
            made = run_views(cuda, images, params, launch=launch._replace(blocks=blocks), order=order + 1)
            torch.testing.assert_close(made, expected, rtol=0, atol=0)

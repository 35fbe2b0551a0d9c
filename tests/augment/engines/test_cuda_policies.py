"""Policies and whole recipes on CUDA: on the device where there is one, else from their PTX (tests/ptx)."""

import dataclasses

import numpy as np
import pytest
import torch

from fastmagn.augment.params import ViewParams, ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import (
    FACTORS,
    OPERATIONS,
    AutoAugmentPolicy,
    Choice,
    RandAugmentPolicy,
    TrivialAugmentPolicy,
)
from fastmagn.augment.policies.images import apply_policy
from fastmagn.augment.policies.own import OwnPolicy
from fastmagn.augment.policies.recipe import draw_rows
from fastmagn.augment.policies.table import Policy, list_rows, make_table
from fastmagn.augment.views import VIEW_DTYPES
from fastmagn.config.schema import AugmentConfig
from tests.helpers.tiers import slow, slow_but

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
from fastmagn_kernels.policy_cuda.table import MAX_STEPS
from tests.augment.engines.cuda_runs import plan, run_policy, run_views
from tests.augment.engines.test_cuda import PAPER, PICTURES, SPEC, assert_equal, cuda, on_the_host, params_for

__all__ = ["cuda"]

BLACK, COLOUR = (0, 0, 0), (7, 130, 255)
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
VALUES = {
    "shear_x": [0.0, 0.033, 0.3, 0.99, 4.0],
    "shear_y": [0.0, 0.033, 0.3, 0.99, 4.0],
    "translate_x": [0.0, 1.06, 3.0, 32.0, 4096.0],
    "translate_y": [0.0, 1.06, 3.0, 32.0, 4096.0],
    "rotate": [0.1, 4.5, 30.0, 90.0, 135.0, 180.0, 359.9],
    "posterize": [*range(1, 9)],
    "solarize": [0.0, 1.0, 8.5, 127.5, 255.0, 256.0],
    **{name: [0.0, 0.01, 0.34, 1.0, 1.99, 10.0] for name in FACTORS},
}
CLEAN = ViewSpec(num_augmix_views=0, num_noise_views=0)
POLICIES = {
    "trivialaugment": Policy(TrivialAugmentPolicy()),
    "trivialaugment bilinear": Policy(TrivialAugmentPolicy(), True, COLOUR),
    "randaugment": Policy(RandAugmentPolicy(2, 9)),
    "randaugment bilinear": Policy(RandAugmentPolicy(5, 30), True),
    "autoaugment": Policy(AutoAugmentPolicy("cifar10"), False, COLOUR),
    "no operation": Policy(RandAugmentPolicy(0)),
}
NOISES = {
    **{"patch_linf": 0.1, "patch_l2": 5.0, "patch_l1": 200.0, "patch_l05": 4e5},
    **{"patch_impulse": 0.2, "patch_gaussian": 0.1},
}
RECIPES = {
    "trivialaugment": dataclasses.replace(PAPER, policy="trivialaugment"),
    "everything": AugmentConfig(
        policy="randaugment", policy_interpolation="bilinear", randaugment_num_ops=3, rotation_deg=20.0,
        color_jitter=0.3, erase_probability=0.7, erase_fill="noise", patch_probability=0.7, **NOISES,
    ),
    "cutout and patches": AugmentConfig(
        erase_probability=1.0, erase_square_px=5, patch_l2=3.0, patch_impulse=0.3, patch_clip=False
    ),
    "erased with the mean": AugmentConfig(policy="autoaugment_svhn", erase_probability=1.0, erase_fill="mean"),
}  # fmt: skip


def policy_params(count: int, size: tuple[int, int], indices: np.ndarray | None = None) -> ViewParams:
    return sample_view_params(3, 2, np.arange(count) if indices is None else indices, CLEAN, AugmentConfig(), size)


def by_pillow(images: np.ndarray, params: ViewParams, policy: Policy) -> np.ndarray:
    tensor = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)
    return apply_policy(tensor, params, policy, "pil").permute(0, 2, 3, 1).numpy()


def policy_of(name: str, bilinear: bool, fill: tuple[int, int, int]) -> Policy:
    values = VALUES.get(name, [0.0])
    signed = [sign * value for value in values for sign in ((1, -1) if name in SIGNED else (1,))]
    return Policy(OwnPolicy((((Choice(name, tuple(signed)),),),)), bilinear, fill)


def indices_of_every_row(policy: Policy, size: tuple[int, int], at_most: int) -> np.ndarray:
    """Samples of which each draws another row of a policy of one step; evenly spaced if that are too many."""
    table = make_table(policy, *size)
    drawn = draw_rows(table, np.arange(2000), (2, 3, 0), size)[:, 0]
    _, first = np.unique(drawn, return_index=True)
    assert len(first) == len(table.kinds)
    return first[np.linspace(0, len(first) - 1, min(at_most, len(first))).round().astype(int)]


TINY = [((1, 1), 20), ((2, 5), 20), ((3, 3), 20), ((9, 8), 20)]  # size, number of rows
SMALL = [((20, 33), 20), ((32, 32), 20)]
LARGE = [((225, 225), 2), ((1, 300), 20), ((300, 1), 20), ((224, 180), 2)]


@pytest.mark.parametrize("sizes", [TINY, *slow(SMALL, LARGE)], ids=["tiny", "small", "large"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_row_equals_pillow(cuda, name, sizes, pictures):
    for size, count in sizes:
        moves = name in SIGNED
        for bilinear, fill in ((False, BLACK), (False, COLOUR), (True, BLACK), (True, COLOUR))[: 4 if moves else 1]:
            policy = policy_of(name, bilinear, fill)
            indices = indices_of_every_row(policy, size, count)
            images = np.resize(pictures(*size), (len(indices), *size, 3))
            params = policy_params(0, size, indices)
            made = run_policy(cuda, images, params, policy)
            np.testing.assert_array_equal(made, by_pillow(images, params, policy), err_msg=f"{size} {bilinear} {fill}")


@pytest.mark.parametrize("size", slow_but([(9, 8), (33, 31), (64, 64)], (9, 8)), ids=str)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_policy_equals_pillow_in_either_format_and_memory(cuda, policy, size, pictures):
    images = np.resize(pictures(*size), (28 if size == (9, 8) else 14, *size, 3))
    params = policy_params(len(images), size)
    expected = by_pillow(images, params, policy)
    for in_shared in (True, False):
        np.testing.assert_array_equal(run_policy(cuda, images, params, policy, in_shared=in_shared), expected)
        planar = run_policy(cuda, images.transpose(0, 3, 1, 2), params, policy, True, in_shared, order=2)
        np.testing.assert_array_equal(planar, expected.transpose(0, 3, 1, 2))


def test_a_policy_can_have_as_many_steps_as_a_file(cuda, pictures):
    step = (Choice("invert"), Choice("rotate", (4.0,)))
    policy = Policy(OwnPolicy(((step,) * MAX_STEPS,)))
    assert list_rows(policy.definition, 3, 3).steps.shape == (1, MAX_STEPS, 2)
    images, params = pictures(3, 3)[:4], policy_params(4, (3, 3))
    np.testing.assert_array_equal(run_policy(cuda, images, params, policy), by_pillow(images, params, policy))


@pytest.mark.parametrize("size", slow_but([(1, 1), (2, 5), (9, 8), (32, 32), (20, 33)], (2, 5)), ids=str)
@pytest.mark.parametrize("recipe", RECIPES)
def test_views_with_a_recipe_equal_the_cpu_engines_to_the_bit(cuda, recipe, size, pictures):
    images = pictures(*size)[PICTURES if max(size) < 20 else PICTURES[:3]]
    params = params_for(images, RECIPES[recipe])
    assert_equal(run_views(cuda, images, params), on_the_host(images, params))


@pytest.mark.parametrize("dtype", slow_but(VIEW_DTYPES, torch.float32), ids=str)
@pytest.mark.parametrize("size", [(3, 5), (4, 7)], ids=["rows", "in the views' memory"])
def test_recipes_from_scratch_in_every_dtype(cuda, size, dtype, pictures):
    images = pictures(*size)[PICTURES]
    params = params_for(images, RECIPES["everything"])
    launch = plan(images, params, in_shared=False, dtype=dtype)
    expected = on_the_host(images, params).to(dtype)
    for blocks in (launch.blocks, 1):
        assert_equal(run_views(cuda, images, params, dtype, launch._replace(blocks=blocks)), expected)


@pytest.mark.slow
def test_recipes_on_large_images_and_shared_groups(cuda, pictures):
    images = pictures(225, 225)[PICTURES[:2]]
    params = params_for(images, RECIPES["everything"])
    assert_equal(run_views(cuda, images, params, order=3), on_the_host(images, params))
    images = pictures(9, 8)[PICTURES]
    params = params_for(images, RECIPES["everything"], SPEC)
    for groups in range(1, 5):
        launch = plan(images, params)._replace(groups=groups, blocks=groups * len(images))
        assert_equal(run_views(cuda, images, params, launch=launch, order=groups), on_the_host(images, params))

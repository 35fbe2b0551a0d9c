"""One of AugMix's operations as a policy's step: what it does, how it is drawn, and that it is alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.plain_spectra import augmix_operation
from fastmagn.augment.engines.pil_operations import apply_operation
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import AugMixOperation
from fastmagn.augment.policies.images import apply_policy
from fastmagn.augment.policies.table import Policy, list_rows, make_table
from fastmagn.config.schema import AugmentConfig

CLEAN = ViewSpec(num_augmix_views=0, num_noise_views=0)
TRANSLATIONS = ("translate_x", "translate_y")


@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
def test_the_rows_are_augmixs_operations_at_equally_spaced_levels(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    rows = list_rows(AugMixOperation(step=0), *size).choices
    assert len(rows) == 9 * 256
    for row in range(0, len(rows), 7):
        operation, place = divmod(row, 256)
        name, value, probability = rows[row]
        positive = (place % 2 == 0) != (name in TRANSLATIONS)
        expected = augmix_operation(image, operation, 0.1 + 2.9 * (place // 2 + 0.5) / 128, 1 if positive else -1)
        made = apply_operation(image, name, value, bilinear=True, fill=(0, 0, 0))
        assert np.array_equal(made, expected), (name, value)
        assert probability == 1


def test_all_operations_add_four():
    rows = list_rows(AugMixOperation(step=0, all_operations=True), 32, 32).choices
    assert len(rows) == 13 * 256
    assert [rows[256 * k][0] for k in range(9, 13)] == ["color", "contrast", "brightness", "sharpness"]
    factors = [value for _, value, _ in rows[9 * 256 : 10 * 256]]
    assert (min(factors), max(factors)) == pytest.approx((0.1 + 0.018, 0.1 + 0.54), abs=0.003)


@pytest.mark.parametrize("step", [0, 60, 63])
def test_the_compiled_engine_draws_and_makes_what_pillow_does(step):
    policy = Policy(AugMixOperation(step), bilinear=True)
    assert make_table(policy, 32, 32).steps.shape == (1, step + 1, 2)
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    params = sample_view_params(3, 2, np.arange(64), CLEAN, AugmentConfig(), (32, 32))
    compiled, reference = (apply_policy(images, params, policy, backend) for backend in ("numba", "pil"))
    assert torch.equal(compiled, reference)
    changed = (compiled != images).flatten(1).any(dim=1)
    assert changed.float().mean() > 0.7


def test_steps_draw_apart():
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    params = sample_view_params(3, 2, np.arange(64), CLEAN, AugmentConfig(), (32, 32))
    first, second = (apply_policy(images, params, Policy(AugMixOperation(step), True), "numba") for step in (60, 61))
    assert (first == second).flatten(1).all(dim=1).float().mean() < 0.3

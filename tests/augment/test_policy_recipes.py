"""Policies, erased areas and noise patches of whole views: against the reference engine and known distributions."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from fastmagn.augment.params import ViewParams, ViewSpec, identity_base, sample_view_params
from fastmagn.augment.policies.recipe import has_recipe
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from fastmagn_kernels.random import policies
from tests.helpers.views import CLEAN_ONLY, as_tensor, assert_equal_on_threads

MEAN = (0.2, 0.4, 0.6)
STILL = {"crop_padding_px": 0, "rotation_deg": 0.0}
NOISES = {
    "linf": {"patch_linf": 0.1},
    "l2": {"patch_l2": 5.0},
    "l1": {"patch_l1": 200.0},
    "l05": {"patch_l05": 4e5},
    "impulse": {"patch_impulse": 0.2},
    "gaussian": {"patch_gaussian": 0.1},
}
SETTINGS = {
    "trivialaugment": {"policy": "trivialaugment", "color_jitter": 0.2, "horizontal_flip": True},
    "bilinear": {"policy": "randaugment", "policy_interpolation": "bilinear", "randaugment_num_ops": 3},
    "erased with noise": {"policy": "autoaugment_cifar10", "erase_probability": 0.8, "erase_fill": "noise"},
    "erased with the mean": {"erase_probability": 1.0, "erase_fill": "mean", "erase_max_area": 0.5},
    "cutout": {"erase_probability": 1.0, "erase_square_px": 7},
    "all noises, not clipped": {**{k: v for noise in NOISES.values() for k, v in noise.items()}, "patch_clip": False},
}


def params_of(settings: dict, count: int, size: tuple[int, int], spec: ViewSpec = CLEAN_ONLY) -> ViewParams:
    return sample_view_params(3, 1, np.arange(count), spec, AugmentConfig(**settings), size, MEAN)


@pytest.mark.parametrize("size", [(32, 32), (20, 33), (1, 1), (2, 5)], ids=str)
@pytest.mark.parametrize("settings", [*SETTINGS.values(), *NOISES.values()], ids=[*SETTINGS, *NOISES])
def test_views_equal_the_reference_engines(settings, size, pictures):
    images = as_tensor(pictures(*size))
    params = params_of(settings, 14, size, ViewSpec(num_augmix_views=1, num_noise_views=1))
    made, expected = make_views(images, params), make_views(images, params, "pil")
    if params.recipe.patches.threshold == 0:
        assert torch.equal(made[:14], expected[:14])
    torch.testing.assert_close(made, expected, rtol=3e-6, atol=1e-6)


def test_views_do_not_depend_on_batch_or_threads(monkeypatch, pictures):
    images, settings = as_tensor(pictures(32, 32)), {**SETTINGS["erased with noise"], **NOISES["l2"]}
    whole = make_views(images, params_of(settings, 14, (32, 32)))
    for row in (0, 7, 13):
        alone = sample_view_params(3, 1, [row], CLEAN_ONLY, AugmentConfig(**settings), (32, 32), MEAN)
        assert torch.equal(make_views(images[row : row + 1], alone)[0], whole[row])
    assert_equal_on_threads("numba", monkeypatch)


def test_other_views_have_the_policy_and_the_erased_area_but_no_patch(pictures):
    images, spec = as_tensor(pictures(32, 32)), ViewSpec(num_augmix_views=1, num_noise_views=1)
    settings = {"policy": "trivialaugment", "erase_probability": 1.0, "erase_fill": "mean"}
    plain = make_views(images, params_of(settings, 14, (32, 32), spec)).chunk(3)
    patched = make_views(images, params_of({**settings, "patch_gaussian": 0.5}, 14, (32, 32), spec)).chunk(3)
    assert torch.equal(plain[1], patched[1])
    assert torch.equal(plain[2], patched[2])
    assert (plain[0] != patched[0]).flatten(1).any(dim=1).all()


def test_turning_one_thing_on_changes_no_other(pictures):
    """Each has words of its own."""
    one = params_of({"policy": "trivialaugment"}, 200, (32, 32)).recipe.params
    all_ = params_of(
        {"policy": "trivialaugment", "erase_probability": 0.5, **NOISES["l1"]}, 200, (32, 32)
    ).recipe.params
    erased = params_of({"erase_probability": 0.5}, 200, (32, 32)).recipe.params.erased
    np.testing.assert_array_equal(one.rows, all_.rows)
    np.testing.assert_array_equal(erased, all_.erased)
    assert 60 < (erased[:, 2] > 0).sum() < 140


def test_rectangles_are_torchvisions():
    """Areas, ratios and places of RandomErasing, by two-sample Kolmogorov-Smirnov tests."""
    count, (height, width) = 3000, (40, 64)
    torch.manual_seed(0)
    erasing, image = v2.RandomErasing(p=1.0, scale=(0.02, 0.33)), torch.zeros(3, height, width)
    drawn = [erasing.make_params([image]) for _ in range(count)]
    theirs = np.array([[one["j"], one["i"], one["w"], one["h"]] for one in drawn if one["v"] is not None], float)
    ours = params_of({"erase_probability": 1.0}, count, (height, width)).recipe.params.erased.astype(float)
    assert (ours[:, 2] > 0).mean() > 0.99
    for made, expected in zip(ours.T, theirs.T, strict=True):
        assert stats.ks_2samp(made, expected).pvalue > 1e-3
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3


def test_cutout_is_a_square_that_the_border_cuts(pictures):
    images = as_tensor(np.repeat(pictures(32, 32)[4:5], 300, 0))  # white
    params = params_of({**STILL, "erase_probability": 1.0, "erase_square_px": 8}, 300, (32, 32))
    views = make_views(images, params)
    black = (views == 0).all(dim=1)
    left, top, width, height = params.recipe.params.erased.T
    assert (black.sum(dim=(1, 2)).numpy() == width * height).all()
    assert {8} <= set(width) <= {4, 5, 6, 7, 8}
    assert (left >= 0).all()
    assert (left + width <= 32).all()
    assert (top + height <= 32).all()


@pytest.mark.parametrize(("noise", "power"), [("l1", 1.0), ("l2", 2.0), ("l05", 0.5)])
def test_points_are_uniform_in_their_balls(noise, power):
    """In d dimensions, the radius to the power d is uniform, and no direction is preferred."""
    count = 2000
    settings = {**STILL, f"patch_{noise}": 1.0, "patch_min_area": 1.0, "patch_max_area": 1.0}
    settings |= {"patch_max_left_out": 0.0, "patch_clip": False}
    params = params_of(settings, count, (1, 1))
    strength = params.recipe.params.strength.astype(float)
    points = make_views(torch.zeros(count, 3, 1, 1, dtype=torch.uint8), params).reshape(count, 3).double().numpy()
    points /= strength[:, None]
    radii = (np.abs(points) ** power).sum(axis=1) ** (1 / power)
    assert (params.recipe.params.patched[:, 2] == 1).all()
    assert radii.max() <= 1 + 1e-5
    assert stats.kstest(radii**3, "uniform").pvalue > 1e-3
    assert stats.kstest(strength, "uniform").pvalue > 1e-3
    assert np.abs(np.sign(points).mean(axis=0)).max() < 0.1
    for one, other in ((0, 1), (1, 2)):
        assert stats.ks_2samp(np.abs(points[:, one]), np.abs(points[:, other])).pvalue > 1e-3


@pytest.mark.parametrize("noise", NOISES)
def test_a_patch_is_within_its_rectangle_and_leaves_a_share_out(noise, pictures):
    images = as_tensor(np.full((200, 32, 32, 3), 128, np.uint8))
    params = params_of({**STILL, **NOISES[noise]}, 200, (32, 32))
    changed = (make_views(images, params) != 128 / 255).permute(0, 2, 3, 1).numpy()
    drawn = params.recipe.params
    left, top, width, height = drawn.patched.T
    area = width * height / 1024
    assert (area > 0.17).all()
    assert (area < 0.73).all()
    shares = []
    for image, x, y, w, h in zip(changed, left, top, width, height, strict=True):
        inside = image[y : y + h, x : x + w]
        assert image.sum() == inside.sum()
        shares.append(inside.mean())
    kept = 1 - drawn.left_out
    expected = kept * drawn.strength if noise == "impulse" else kept
    np.testing.assert_allclose(shares, expected, atol=0.12)
    assert abs(np.mean(shares) - expected.mean()) < 0.01
    assert set(drawn.noise) == {policies.NOISES.index(noise)}


@pytest.mark.parametrize("size", [(32, 32), (32, 64), (20, 51), (3, 1)])
def test_a_patch_of_the_whole_area_covers_every_image(size):
    settings = {**STILL, "patch_l2": 1.0, "patch_min_area": 1.0, "patch_max_area": 1.0}
    drawn = params_of(settings, 5000, size).recipe.params
    height, width = size
    assert (drawn.patched == (0, 0, width, height)).all()


def test_each_noise_is_drawn_as_often_as_the_others():
    settings = {key: value for noise in NOISES.values() for key, value in noise.items()}
    params = params_of({**settings, "patch_probability": 0.5}, 6000, (32, 32)).recipe.params
    has_one = params.patched[:, 2] > 0
    assert abs(has_one.mean() - 0.5) < 0.03
    counts = np.bincount(params.noise[has_one], minlength=6)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_identity_views_have_none_of_it():
    params = params_of({**SETTINGS["erased with noise"], **NOISES["l2"]}, 3, (32, 32))
    assert has_recipe(params.augment)
    assert not has_recipe(identity_base(params).augment)
    assert identity_base(params).recipe is None
    assert not has_recipe(AugmentConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"erase_probability": 1.5}, "augment.erase_probability: got 1.5; expected 0..1."),
        ({"erase_min_area": 0.0}, "augment.erase_min_area: got 0.0; expected a share of the area in (0, 1]."),
        ({"erase_max_area": 0.01}, "augment.erase_max_area: got 0.01; expected a share of the area in 0.02..1."),
        ({"patch_l2": -1.0}, "augment.patch_l2: got -1.0; expected 0..1e30."),
        ({"patch_l05": 1e39}, "augment.patch_l05: got 1e+39; expected 0..1e30."),  # beyond float32's range
        ({"randaugment_num_ops": 0}, "augment.randaugment_num_ops: got 0; expected 1..8."),
        ({"erase_square_px": 300}, "augment.erase_square_px: got 300; expected 0 (none) or 1..256."),
    ],
)
def test_other_settings_are_refused(settings, message):
    with pytest.raises(InputError) as error:
        AugmentConfig(**settings)
    assert str(error.value) == message

"""Training on Gaussian noise: how many images have it, how strong it is, and its loss as a loop."""

import numpy as np
import pytest
from scipy import stats

from fastmagn.errors import InputError
from fastmagn.methods.table import get_method
from fastmagn.training.step import make_pieces
from tests.helpers.plain_losses import check_cross_entropy_of_its_only_view
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import start_run

METHOD = get_method("gaussian_noise")
BATCH = 512


def views_of(tmp_path, name: str, *arguments: str) -> np.ndarray:
    """The views that the model is given in the first step, [512, 3, H, W]."""
    run = start_run(small(tmp_path / name, "--train.batch_size", str(BATCH), *arguments))
    (piece,) = make_pieces(run, next(iter(run.source.batches(0))), epoch=0)
    assert piece.views.shape[0] == BATCH
    return piece.views.numpy()


@pytest.fixture(scope="module")
def noises(tmp_path_factory) -> tuple[np.ndarray, np.ndarray]:
    """What the method adds to each image before clipping, float64 [512, 3 * H * W], and the images themselves."""
    folder = tmp_path_factory.mktemp("noises")
    clean = views_of(folder, "standard", "--method", "standard")
    noisy = views_of(folder, "noisy", "--method", "gaussian_noise", "--augment.patch_clip", "false")
    return (noisy.astype(np.float64) - clean).reshape(BATCH, -1), clean


def test_half_of_the_images_have_noise_everywhere_and_the_others_none(noises):
    changed = (noises[0] != 0).mean(axis=1)
    noisy = changed > 0
    assert (changed[noisy] > 0.99).all()  # float32 leaves a few values as they are
    assert stats.binomtest(int(noisy.sum()), BATCH, 0.5).pvalue > 1e-3


def test_the_noise_is_normal_and_its_deviation_uniform_up_to_a_fifth(noises):
    added = noises[0][(noises[0] != 0).any(axis=1)]
    sigma = added.std(axis=1)
    assert stats.kstest(sigma, stats.uniform(0, 0.2).cdf).pvalue > 1e-3
    assert stats.kstest((added / sigma[:, None])[:, ::40].ravel(), "norm").pvalue > 1e-3


def test_values_are_clipped(tmp_path, noises):
    added, clean = noises
    views = views_of(tmp_path, "clipped", "--method", "gaussian_noise")
    np.testing.assert_allclose(views, np.clip(clean + added.reshape(clean.shape), 0, 1), rtol=0, atol=1e-6)


def test_its_loss_is_the_cross_entropy_of_its_only_view():
    check_cross_entropy_of_its_only_view(METHOD, "Gaussian noise")


def test_the_users_strength_and_share_count(tmp_path, noises):
    arguments = ["--augment.patch_gaussian", "0.02", "--augment.patch_probability", "0.9"]
    views = views_of(tmp_path, "mine", "--method", "gaussian_noise", "--augment.patch_clip", "false", *arguments)
    added = (views.astype(np.float64) - noises[1]).reshape(BATCH, -1)
    noisy = (added != 0).any(axis=1)
    assert stats.binomtest(int(noisy.sum()), BATCH, 0.9).pvalue > 1e-3
    assert 0.018 < added[noisy].std(axis=1).max() < 0.021


def test_a_smaller_patch_needs_both_areas(tmp_path):
    with pytest.raises(InputError) as error:
        start_run(small(tmp_path, "--method", "gaussian_noise", "--augment.patch_max_area", "0.5"))
    assert str(error.value) == (
        "augment.patch_max_area: got 0.5; expected a share of the area in 1..1. Where you leave them at their defaults,"
        " Gaussian noise sets augment.patch_gaussian 0.2, augment.patch_probability 0.5, augment.patch_min_area 1.0,"
        " augment.patch_max_left_out 0.0."
    )
    half = ["--augment.patch_max_area", "0.5", "--augment.patch_min_area", "0.5"]
    start_run(small(tmp_path, "--method", "gaussian_noise", *half))


def test_magn_adds_noisy_views_to_it(tmp_path):
    run = start_run(small(tmp_path, "--method", "gaussian_noise+magn", "--train.batch_size", "16"))
    (piece,) = make_pieces(run, next(iter(run.source.batches(0))), epoch=0)
    assert get_method("gaussian_noise+magn").view_titles(run.config.augment) == ["Gaussian noise", "noisy"]
    assert piece.views.shape[0] == 32

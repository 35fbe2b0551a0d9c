"""One AugMix view with noise on half of the images: which have it, how much, and the loss as a loop."""

import numpy as np
import pytest
import torch
from scipy import stats

from fastmagn.methods.table import get_method
from fastmagn.training.step import make_pieces, prepared
from tests.helpers.plain_losses import check_cross_entropy_of_its_only_view
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import start_run

METHOD = get_method("augmix_noise")
BATCH = 512


def views_of(folder, method: str, *arguments: str) -> np.ndarray:
    """The views that the model is given in the first step, [V * 512, 3, H, W]."""
    run = start_run(small(folder, "--method", method, "--train.batch_size", str(BATCH), *arguments))
    batch = next(iter(run.source.batches(0)))
    (piece,) = make_pieces(run, batch, epoch=0)
    views, targets = prepared(run, piece)
    assert torch.equal(targets, batch.labels)
    return views.numpy()


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> dict[str, np.ndarray]:
    """By method: clean, AugMix and noisy views as MAGN + AugMix is given them, and what this method is given."""
    folder = tmp_path_factory.mktemp("views")
    clean, augmix, _, noisy = np.split(views_of(folder / "magn", "magn_augmix").astype(np.float64), 4)
    given = views_of(folder / "noise", "augmix_noise")
    assert given.shape == (BATCH, *clean.shape[1:])
    return {"augmix": augmix, "noise": noisy - clean, "given": given}


def test_a_view_is_the_augmix_view_or_that_with_the_noise_of_magn(views):
    given, augmix = views["given"], views["augmix"]
    disturbed = np.clip(augmix + views["noise"], 0, 1)
    plain = (given == augmix.astype(np.float32)).all(axis=(1, 2, 3))
    np.testing.assert_allclose(given[~plain], disturbed[~plain], rtol=0, atol=1e-6)
    assert stats.binomtest(int(plain.sum()), BATCH, 0.5).pvalue > 1e-3


def test_the_noise_is_normal_and_its_deviation_uniform_up_to_sigma_max(views):
    noise = views["noise"].reshape(BATCH, -1)
    sigma = noise.std(axis=1)
    assert stats.kstest(sigma, stats.uniform(0, 0.2).cdf).pvalue > 1e-3
    assert stats.kstest((noise / sigma[:, None])[:, ::40].ravel(), "norm").pvalue > 1e-3


def test_which_views_have_noise_depends_neither_on_the_batch_nor_on_the_strength(tmp_path, views):
    again = views_of(tmp_path / "weak", "augmix_noise", "--augment.sigma_max", "0.01")
    plain = (views["given"] == views["augmix"].astype(np.float32)).all(axis=(1, 2, 3))
    assert ((again == views["augmix"].astype(np.float32)).all(axis=(1, 2, 3)) == plain).all()
    run = start_run(small(tmp_path / "pieces", "--method", "augmix_noise", "--train.batch_size", str(BATCH)))
    batch = next(iter(run.source.batches(0)))
    part = batch.pieces(4)[2]
    (piece,) = make_pieces(run, part, epoch=0)
    np.testing.assert_array_equal(prepared(run, piece)[0].numpy(), views["given"][2 * BATCH // 4 : 3 * BATCH // 4])


def test_its_loss_is_the_cross_entropy_of_its_only_view():
    check_cross_entropy_of_its_only_view(METHOD, "AugMix with noise")

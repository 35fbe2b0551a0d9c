"""AugMix without its divergence: what the model is given, and its loss as a loop."""

import pytest
import torch

from fastmagn.errors import InputError
from fastmagn.methods.table import get_method
from fastmagn.training.step import make_pieces, prepared
from tests.helpers.plain_losses import check_cross_entropy_of_its_only_view
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import start_run


def test_the_model_is_given_the_first_view_of_augmix(tmp_path):
    given = {}
    for method in ("augmix", "augmix_no_jsd"):
        run = start_run(small(tmp_path, "--method", method, "--train.batch_size", "16"))
        batch = next(iter(run.source.batches(0)))
        views, targets = prepared(run, make_pieces(run, batch, epoch=0)[0])
        assert torch.equal(targets, batch.labels)
        given[method] = views
    clean, first, second = given["augmix"].chunk(3)
    assert torch.equal(given["augmix_no_jsd"], first)
    assert not torch.equal(first, clean)
    assert not torch.equal(first, second)


def test_its_loss_is_the_cross_entropy_of_its_only_view():
    check_cross_entropy_of_its_only_view(get_method("augmix_no_jsd"), "AugMix (no JSD)")


@pytest.mark.parametrize("method", ["augmix_no_jsd", "augmix_no_jsd+magn", "cutout+magn"])
def test_noise_patches_that_nobody_would_see_are_refused(tmp_path, method):
    patched = ["--method", method, "--augment.patch_l2", "5"]
    with pytest.raises(InputError) as error:
        start_run(small(tmp_path / "patched", *patched))
    title = get_method(method).title
    assert str(error.value) == (
        f"augment.patch_l2: got 5.0; expected 0 with {title}, which leaves out or undoes the noise patch: it is on the"
        " clean view alone."
    )
    start_run(small(tmp_path / "never", *patched, "--augment.patch_probability", "0"))
    assert not get_method("ta_noise").drops_clean

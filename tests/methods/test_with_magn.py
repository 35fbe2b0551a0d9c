"""NAME+magn: MAGN's consistency beside another method."""

import dataclasses

import pytest
import torch

from fastmagn.config.schema import AugmentConfig, LossConfig
from fastmagn.errors import InputError
from fastmagn.methods.magn import with_magn
from fastmagn.methods.method import Layout, LogitViews, Method
from fastmagn.methods.standard import standard_loss
from fastmagn.methods.table import METHODS, get_method
from fastmagn.reporting.names import method_order, method_title
from fastmagn.training.step import make_pieces, prepared
from tests.helpers.plain_losses import LABELS, kl_row, softmax_row
from tests.helpers.small_runs import small_default as small
from tests.helpers.steps import make_context, random_images, start_run, take_steps
from tests.helpers.tiers import slow_but

REFUSED = ("at", "trades", "rse", "dign", "magn", "magn_augmix", "augmix_noise")  # they have noisy or adversarial views
FAST = ["--train.amp", "float32", "--train.batch_size", "16"]


@pytest.mark.parametrize(("added", "whole"), [("standard+magn", "magn"), ("augmix+magn", "magn_augmix")])
def test_magn_on_a_method_is_the_paper_method_to_the_bit(added, whole, tmp_path):
    runs = [start_run(small(tmp_path, "--method", method, *FAST)) for method in (added, whole)]
    parts, expected = (take_steps(run, 2) for run in runs)
    assert parts == expected
    weights, expected_weights = (run.model.state_dict() for run in runs)
    assert all(torch.equal(weights[name], value) for name, value in expected_weights.items())


def test_its_loss_is_the_own_loss_and_the_weighted_consistency():
    generator = torch.Generator().manual_seed(0)
    clean, noisy = (3 * torch.randn(len(LABELS), 10, generator=generator) for _ in range(2))
    own, own_parts = get_method("standard").loss(LogitViews(clean), LABELS, LossConfig())
    loss, parts = get_method("cutout+magn").loss(
        LogitViews(clean, noisy=(noisy,)), LABELS, LossConfig(consistency_weight=0.7)
    )
    rows = zip(clean.tolist(), noisy.tolist(), LABELS.tolist(), strict=True)
    expected = sum(softmax_row(p)[y] * kl_row(softmax_row(p), softmax_row(q)) for p, q, y in rows) / len(LABELS)
    assert parts.keys() == {*own_parts, "consistency"}
    assert parts["consistency"].item() == pytest.approx(expected, rel=1e-5)
    assert loss.item() == pytest.approx(own.item() + 0.7 * expected, rel=1e-5)


def test_the_noise_is_added_to_the_first_view_as_the_method_changes_it():
    """A method that darkens the clean view and makes an augmented one."""
    darkened = Method(
        title="Dark",
        loss=standard_loss,
        prepare=lambda views, labels, context: (torch.cat([views * 0.5, 1 - views]), labels),
        forwarded=Layout(augmented=1),
    )
    method, clean = with_magn(darkened), random_images(4)
    noise = [0.1 * torch.randn(4, 3, 32, 32) for _ in range(2)]
    views, labels = torch.cat([clean, *(clean + part for part in noise)]), torch.arange(4)
    prepared, targets = method.prepare(views, labels, make_context(indices=[0, 1, 2, 3]))
    augment = AugmentConfig(num_noise_samples=2)
    expected = [clean / 2, clean / 2 + noise[0], clean / 2 + noise[1], 1 - clean]
    torch.testing.assert_close(prepared, torch.cat(expected), rtol=0, atol=1e-6)
    assert targets is labels
    assert method.layout(augment) == Layout(noisy=2, augmented=1)
    assert method.view_titles(augment) == ["clean", "noisy 1", "noisy 2", "Dark"]
    assert method.title == "Dark+MAGN"


@pytest.mark.parametrize("method", slow_but([name for name in METHODS if name not in REFUSED], "cutmix", "apr"))
def test_two_steps_of_every_method_with_it(method, tmp_path):
    run = start_run(small(tmp_path, "--method", f"{method}+magn", *FAST, "--augment.num_noise_samples", "2"))
    (piece,) = make_pieces(run, next(run.source.batches(0)), 0)
    assert prepared(run, piece)[0].is_contiguous(memory_format=torch.channels_last)
    for parts in take_steps(run, 2):
        assert parts["consistency"] > 0
    assert run.main_stage.method.layout(run.config.augment).noisy == 2


def test_its_title_and_its_place_in_reports():
    assert method_title("cutout+magn") == "Cutout+MAGN"
    names = ["mixup", "cutout+magn", "strange", "cutout", "standard"]
    assert sorted(names, key=method_order) == ["standard", "cutout", "cutout+magn", "mixup", "strange"]
    title = get_method("cutout+magn").view_titles(AugmentConfig())
    assert title == ["Cutout", "noisy"]


@pytest.mark.parametrize("name", [f"{method}+magn" for method in REFUSED])
def test_a_method_with_noisy_or_adversarial_views_is_refused(name):
    with pytest.raises(InputError) as error:
        get_method(name)
    assert str(error.value) == (
        f"method: got {name!r}; expected a method before +magn that has no noisy or adversarial views itself."
    )


def test_an_unknown_name_before_it_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"^method: got 'cutot'; expected one of .*, or NAME\+magn.*cutout"):
        get_method("cutot+magn")


def test_the_method_that_is_added_to_is_left_as_it_is():
    before = dataclasses.asdict(get_method("cutout"))
    get_method("cutout+magn")
    assert dataclasses.asdict(get_method("cutout")) == before

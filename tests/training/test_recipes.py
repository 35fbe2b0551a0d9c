"""What the fast recipes are made of, each against what it stands for."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import LossConfig, OptimConfig
from fastmagn.errors import InputError
from fastmagn.evaluation.metrics.detection import detect, familiarity_scores
from fastmagn.methods.method import LogitViews
from fastmagn.methods.rse import NoiseEnsemble
from fastmagn.methods.table import get_method
from fastmagn.methods.test_time import MirrorEnsemble
from fastmagn.training.optim import learning_rate
from fastmagn.training.step import make_pieces, train_step
from tests.helpers.small_runs import config_for
from tests.helpers.steps import start_run

SHORT = ["--train.batch_size", "32", "--device", "cpu", "--train.amp", "float32", "--eval.num_images", "8"]


@pytest.mark.parametrize(("epochs", "steps_per_epoch"), [(1, 1), (1, 10), (10, 20)])
def test_triangular_goes_straight_up_and_straight_down(epochs, steps_per_epoch):
    optim = OptimConfig(lr=0.4, schedule="triangular")
    steps = epochs * steps_per_epoch
    lrs = np.array([learning_rate(s, optim, steps_per_epoch=steps_per_epoch, epochs=epochs) for s in range(steps)])
    assert (lrs > 0).all()
    assert lrs.max() <= 0.4
    top = lrs.argmax()
    assert abs(top - 0.2 * steps) <= 1
    for side in (lrs[: top + 1], lrs[top:]):
        if len(side) > 2:
            np.testing.assert_allclose(np.diff(side[:-1] if side is not lrs[top:] else side[1:], 2), 0, atol=1e-12)
    if steps > 10:
        assert lrs[-1] == pytest.approx(0.4 / (0.8 * steps), rel=1e-6)


def test_label_smoothing_is_cross_entropy_with_smoothed_targets():
    torch.manual_seed(2)
    logits, labels = torch.randn(6, 10), torch.arange(6)
    loss, _ = get_method("standard").loss(LogitViews(logits), labels, LossConfig(label_smoothing=0.1))
    expected = 0.0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        total = math.log(sum(math.exp(value) for value in row))
        targets = [0.9 * (k == label) + 0.01 for k in range(10)]
        expected += sum(t * (total - value) for t, value in zip(targets, row, strict=True)) / 6
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_mirror_ensemble_is_the_mean_of_both_logits():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 7))
    images = torch.rand(3, 3, 4, 5)
    mirrored = torch.from_numpy(images.numpy()[..., ::-1].copy())
    made = MirrorEnsemble(model)(images)
    torch.testing.assert_close(made, (model(images) + model(mirrored)) / 2)
    torch.testing.assert_close(MirrorEnsemble(model)(mirrored), made)


def test_the_mirror_ensemble_of_a_noise_ensemble_returns_log_probabilities():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 7)).requires_grad_(False)
    images = torch.rand(5, 3, 4, 5)
    ensemble = NoiseEnsemble(network, torch.randn(2, 3, 4, 5))
    made = MirrorEnsemble(ensemble)(images).double()
    expected = (ensemble(images) + ensemble(images.flip(3))).double() / 2
    torch.testing.assert_close(made.softmax(1), expected.softmax(1), rtol=1e-6, atol=1e-7)
    scores = familiarity_scores(made.float())
    assert detect(scores, scores)["energy"] is None
    np.testing.assert_allclose(scores["max_softmax"], expected.softmax(1).amax(1), rtol=1e-6)


def test_clean_epochs_see_clean_views_by_cross_entropy_and_then_the_method(tmp_path):
    arguments = ["--train.clean_epochs", "1", "--train.epochs", "2"]
    run = start_run(config_for(SHORT, tmp_path, *arguments))
    parts = {}
    for epoch in range(2):
        pieces = make_pieces(run, next(run.source.batches(epoch)), epoch)
        assert len(pieces[0].views) == (32 if epoch == 0 else 4 * 32)
        parts[epoch] = train_step(run, pieces, epoch).keys()
    assert parts[0] == {"loss", "cross_entropy", "train_accuracy"}
    assert parts[1] == {"loss", "cross_entropy", "jensen_shannon", "consistency", "train_accuracy"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.clean_epochs", "30"], "train.clean_epochs: got 30; expected 0..29."),
        (
            ["--train.clean_epochs", "1", "--model.bn_views", "per_view"],
            "train.clean_epochs: got 1; expected 0 with model.bn_views per_view.",
        ),
        (["--loss.label_smoothing", "1"], "loss.label_smoothing: got 1.0; expected 0 <= label_smoothing < 1."),
        (["--optim.filter_lr_ratio", "0"], "optim.filter_lr_ratio: got 0.0; expected a number above 0, and finite."),
        (["--optim.beta1", "1"], "optim.beta1: got 1.0; expected 0 <= beta1 < 1."),
        (["--optim.beta2", "-0.1"], "optim.beta2: got -0.1; expected 0 <= beta2 < 1."),
        (["--optim.clip_norm", "-1"], "optim.clip_norm: got -1.0; expected 0 (no clipping) or more, and finite."),
        (["--optim.clip_norm", "nan"], "optim.clip_norm: got 'nan'; expected a number."),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError) as error:
        parse_config(arguments, "test", "A test.")
    assert message in str(error.value)

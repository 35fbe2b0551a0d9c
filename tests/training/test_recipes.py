"""What the fast recipes are made of, each against what it stands for."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import LossConfig, OptimConfig
from fastmagn.errors import InputError
from fastmagn.methods.method import LogitViews
from fastmagn.methods.table import get_method
from fastmagn.methods.test_time import MirrorEnsemble
from fastmagn.training.optim import Muon, learning_rate, make_optimizer, orthogonalise
from fastmagn.training.run import train
from fastmagn.training.step import make_pieces, train_step
from tests.helpers.small_runs import assert_same_weights, config_for, weights
from tests.helpers.steps import start_run

SHORT = ["--train.batch_size", "32", "--device", "cpu", "--train.amp", "float32", "--eval.num_images", "8"]


@pytest.mark.parametrize("shape", [(16, 16), (32, 288), (64, 27)])
def test_orthogonalise_pulls_singular_values_to_one_and_keeps_the_singular_vectors(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonalise(matrix)
    in_its_basis = u.T @ made @ vh.T
    values = in_its_basis.diagonal()
    torch.testing.assert_close(in_its_basis, torch.diag(values), rtol=0, atol=1e-4)
    large = s > 0.2 * s.max()
    assert values[large].min() > 0.5
    assert values.max() < 1.3


def test_muon_is_its_update_written_out():
    torch.manual_seed(1)
    filters, bias = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(8))
    settings = {"lr": 0.1, "momentum": 0.6, "weight_decay": 0.01, "filter_lr_ratio": 0.5}
    optimizer = Muon([filters, bias], **settings)
    w, b = filters.detach().clone(), bias.detach().clone()
    w_buffer, b_buffer = torch.zeros_like(w), torch.zeros_like(b)
    for _ in range(3):
        filters.grad, bias.grad = torch.randn_like(w), torch.randn_like(b)
        w_buffer = 0.6 * w_buffer + filters.grad
        direction = orthogonalise((filters.grad + 0.6 * w_buffer).reshape(8, 27)).view_as(w)
        w = w * math.sqrt(8) / w.norm() - 0.05 * direction
        decayed = bias.grad + 0.01 * b
        b_buffer = 0.6 * b_buffer + decayed
        b = b - 0.1 * (decayed + 0.6 * b_buffer)
        optimizer.step()
    torch.testing.assert_close(filters.detach(), w)
    torch.testing.assert_close(bias.detach(), b)


def test_a_stopped_run_with_muon_goes_on_bit_for_bit(tmp_path):
    def finish(folder: str, *max_steps: int) -> dict[str, torch.Tensor]:
        for steps in max_steps:
            arguments = ["--optim.name", "muon", "--train.max_steps", str(steps), "--eval.corruption_set", "c15"]
            train(config_for(SHORT, tmp_path / folder, *arguments))
        return weights(tmp_path / folder)

    assert_same_weights(finish("parts", 2, 4), finish("whole", 4))


def test_the_optimizer_is_chosen_by_name():
    parameters = [nn.Parameter(torch.zeros(2, 2, 3, 3))]
    assert isinstance(make_optimizer(parameters, OptimConfig(name="muon")), Muon)
    assert isinstance(make_optimizer(parameters, OptimConfig()), torch.optim.SGD)


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
        (["--optim.filter_lr_ratio", "0"], "optim.filter_lr_ratio: got 0.0; expected a number above 0."),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError) as error:
        parse_config(arguments, "test", "A test.")
    assert message in str(error.value)

"""Cosine restarts, and the equal average of the weights of the last epochs."""

import copy
import math

import pytest
import torch
from torch import nn

from fastmagn.config.schema import OptimConfig
from fastmagn.errors import InputError
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training import loop
from fastmagn.training.ema import make_average, update_equal_average
from fastmagn.training.optim import learning_rate
from fastmagn.training.run import train
from tests.helpers.small_runs import knows_the_network, small


@pytest.mark.parametrize(("first", "factor"), [(2, 2), (3, 1), (1, 3)])
def test_restarts_are_pytorchs(first, factor):
    optim = OptimConfig(lr=0.1, schedule="cosine_restarts", restart_epochs=first, restart_factor=factor)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, first, factor)
    for step in range(7 * 14):
        reference.step(step / 7)
        made = learning_rate(step, optim, steps_per_epoch=7, epochs=14)
        assert made == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)


def test_the_published_recipe_restarts_where_it_ends():
    optim = OptimConfig(lr=0.1, schedule="cosine_restarts")
    rates = [learning_rate(epoch, optim, steps_per_epoch=1, epochs=300) for epoch in range(300)]
    assert [epoch for epoch in range(300) if rates[epoch] == 0.1] == [0, 20, 60, 140]
    assert rates[299] < 1e-4


def test_the_rate_of_the_averaged_epochs_moves_to_its_share():
    optim = OptimConfig(lr=0.1, schedule="cosine_restarts", swa_lr_ratio=0.2)
    rates = [learning_rate(step, optim, steps_per_epoch=10, epochs=300, first_averaged=270) for step in range(3000)]
    start = 0.05 * (1 + math.cos(math.pi * 130 / 160))
    assert rates[2700] == pytest.approx(start)
    assert rates[2725] == pytest.approx((start + 0.02) / 2)
    assert rates[2750:] == pytest.approx([0.02] * 250)
    kept = OptimConfig(lr=0.1, schedule="cosine_restarts")
    assert learning_rate(2900, kept, steps_per_epoch=10, epochs=300, first_averaged=270) < 0.002


def test_the_equal_average_is_the_mean():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average, seen = make_average(model), []
    for count in range(5):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        seen.append(copy.deepcopy(model.state_dict()))
        update_equal_average(average, model, count)
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            expected = torch.stack([state[name].double() for state in seen]).mean(dim=0)
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_a_run_averages_its_last_epochs_and_measures_their_statistics(tmp_path, monkeypatch):
    """The mean of the weights after epochs 1 and 2; resumed or not, to the bit."""
    knows_the_network(monkeypatch)
    ends, update = [], loop.update_equal_average

    def record(average, model, count):
        ends.append((count, copy.deepcopy(model.state_dict())))
        update(average, model, count)

    monkeypatch.setattr(loop, "update_equal_average", record)
    arguments = ["--train.epochs", "3", "--train.swa_fraction", "0.6", "--eval.weights", "ema"]
    arguments += ["--eval.corruption_set", "c15", "--train.batch_size", "256"]
    whole = train(small(tmp_path / "whole", *arguments))
    assert [count for count, _ in ends] == [0, 0, 1]
    state = read_checkpoint(last_checkpoint(tmp_path / "whole"), torch.device("cpu"))
    for name, value in state["average"].items():
        if value.is_floating_point() and "running" not in name:
            expected = (ends[1][1][name].double() + ends[2][1][name].double()) / 2
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    moving = [name for name in state["average"] if "running_var" in name]
    assert any(not torch.equal(state["average"][name], state["model"][name]) for name in moving)
    train(small(tmp_path / "cut", *arguments, "--train.max_steps", "9"))
    resumed = train(small(tmp_path / "cut", *arguments))
    assert resumed["clean_accuracy"] == whole["clean_accuracy"]
    other = read_checkpoint(last_checkpoint(tmp_path / "cut"), torch.device("cpu"))
    for part in ("model", "average"):
        assert all(torch.equal(state[part][name], other[part][name]) for name in state[part])


def test_two_averages_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected 0 with a train\.ema_decay above 0: there is one average"):
        small(tmp_path, "--train.ema_decay", "0.9", "--train.swa_fraction", "0.1")

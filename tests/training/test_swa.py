"""Cosine restarts, and the equal average of the weights of the last epochs."""

import copy
import dataclasses
import json
import math
import os
import signal

import pytest
import torch
from torch import nn

from fastmagn.config.schema import OptimConfig
from fastmagn.data import load_data, split_validation
from fastmagn.errors import InputError, Interrupted
from fastmagn.evaluation.run import evaluate_run
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import METRICS, RESULTS, last_checkpoint
from fastmagn.runs.reading import read_results
from fastmagn.training import loop
from fastmagn.training import run as run_module
from fastmagn.training.build import build_run
from fastmagn.training.callbacks import Callbacks
from fastmagn.training.ema import make_average, update_average, update_equal_average
from fastmagn.training.optim import learning_rate
from fastmagn.training.run import train
from fastmagn.training.step import make_pieces
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


class Tied(nn.Module):
    """Two names of one layer, whose weights are shared, and of a counter."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Linear(3, 3)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("same_calls", self.calls)


def test_weights_with_two_names_are_averaged_once():
    torch.manual_seed(0)
    model = Tied()
    equal, exponential = make_average(model), make_average(model)
    seen = []
    expected = model.first.weight.detach().double()
    for count in range(3):
        with torch.no_grad():
            model.first.weight.normal_()
            model.calls.add_(1)
        seen.append(model.first.weight.detach().double())
        update_equal_average(equal, model, count)
        update_average(exponential, model, 0.05, count)
        expected = 0.05 * expected + 0.95 * seen[-1]
    torch.testing.assert_close(equal.second.weight.double(), torch.stack(seen).mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(exponential.second.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert (equal.calls.item(), equal.same_calls.item()) == (3, 3)


def test_a_run_averages_its_last_epochs_and_measures_their_statistics(tmp_path, monkeypatch):
    """The mean of the weights after epochs 1 and 2; resumed or not, to the bit."""
    knows_the_network(monkeypatch)
    ends, update = [], loop.average_epoch

    def record(run, epoch):
        ends.append(copy.deepcopy(run.model.state_dict()))
        update(run, epoch)

    monkeypatch.setattr(loop, "average_epoch", record)
    arguments = ["--train.epochs", "3", "--train.swa_fraction", "0.6", "--eval.weights", "ema"]
    arguments += ["--eval.corruption_set", "c15", "--train.batch_size", "256"]
    whole = train(small(tmp_path / "whole", *arguments))
    assert len(ends) == 3
    state = read_checkpoint(last_checkpoint(tmp_path / "whole"), torch.device("cpu"))
    for name, value in state["average"].items():
        if value.is_floating_point() and "running" not in name:
            expected = (ends[1][name].double() + ends[2][name].double()) / 2
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


SHORT = ["--train.epochs", "3", "--train.swa_fraction", "0.4", "--eval.weights", "ema", "--train.batch_size", "256"]
CPU = torch.device("cpu")


def averaged_run(run_dir, *arguments):
    """The state that a run leaves."""
    train(small(run_dir, *SHORT, *arguments))
    return read_checkpoint(last_checkpoint(run_dir), CPU)


@pytest.mark.parametrize("max_steps", [2, 5])
def test_a_run_that_ends_before_its_averaged_epochs_measures_its_weights(tmp_path, monkeypatch, max_steps):
    """Inside the first epoch, and inside the second, with the third to be averaged."""
    knows_the_network(monkeypatch)
    arguments = ["--train.max_steps", str(max_steps), "--data.num_validation_images", "200"]
    state = averaged_run(tmp_path / "average", *arguments)
    assert all(torch.equal(state["average"][name], state["model"][name]) for name in state["model"])
    averaged_run(tmp_path / "last", *arguments, "--eval.weights", "last")
    accuracies = [
        [json.loads(line)["validation_accuracy"] for line in (tmp_path / name / METRICS).read_text().splitlines()]
        for name in ("average", "last")
    ]
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize("steps", [1, 6])
def test_an_interrupted_run_before_its_averaged_epochs_keeps_its_weights_as_their_average(tmp_path, monkeypatch, steps):
    knows_the_network(monkeypatch)

    def stop(done):
        if done.step == steps:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(small(tmp_path, *SHORT), Callbacks(on_step=stop))
    state = read_checkpoint(last_checkpoint(tmp_path), CPU)
    assert state["step"] == steps
    assert all(torch.equal(state["average"][name], state["model"][name]) for name in state["model"])


def test_the_measured_statistics_are_saved_and_are_the_mean_over_one_epoch(tmp_path, monkeypatch):
    """What a later evaluation or export reads; the first layer's statistics against float64."""
    knows_the_network(monkeypatch)
    state = averaged_run(tmp_path, "--method", "standard")
    config = small(tmp_path, *SHORT, "--method", "standard")
    measured = evaluate_run(tmp_path, config)
    assert measured["clean_accuracy"] == read_results(tmp_path / RESULTS)["clean_accuracy"]
    images = load_data(config.data)
    part, _ = split_validation(images, config.data.num_validation_images, config.train.seed)
    run = build_run(dataclasses.replace(config, run_dir=None), images, part)
    run.model.load_state_dict(state["average"])
    name, norm = next(
        (name, module) for name, module in run.model.named_modules() if isinstance(module, nn.BatchNorm2d)
    )
    means = []
    norm.register_forward_pre_hook(lambda _, inputs: means.append(inputs[0].double().mean(dim=(0, 2, 3))))
    run.model.train()
    with torch.no_grad():
        for batch in run.source.batches(3):
            for piece in make_pieces(run, batch, 3):
                run.model(piece.views)
    expected = torch.stack(means).mean(dim=0)
    torch.testing.assert_close(
        state["average"][f"{name}.running_mean"].double(), expected, rtol=0, atol=1e-5
    )  # of values about 1


@pytest.mark.parametrize("method", ["at", "trades"])
def test_the_statistics_of_an_attacked_average_are_those_of_attacked_views(tmp_path, monkeypatch, method):
    knows_the_network(monkeypatch)
    arguments = ["--method", method, "--attack.steps", "1", "--train.epochs", "2", "--train.swa_fraction", "0.5"]
    state = averaged_run(tmp_path, *arguments)
    moved = [name for name in state["average"] if "running_var" in name]
    assert moved
    assert all(not torch.equal(state["average"][name], state["model"][name]) for name in moved)
    assert read_results(tmp_path / RESULTS)["steps"] == 8


def test_a_run_that_is_resumed_among_its_averaged_epochs_ends_the_same(tmp_path, monkeypatch):
    """Also where the statistics have been measured before, as `train.max_steps` ended it there."""
    knows_the_network(monkeypatch)
    arguments = ["--train.swa_fraction", "0.7", "--train.checkpoint_every_steps", "1"]
    averages, finish = [], run_module.finish_average

    def record(run, progress):
        averages.append(copy.deepcopy(run.average.state_dict()))
        finish(run, progress)

    monkeypatch.setattr(run_module, "finish_average", record)  # the statistics are measured there
    whole = averaged_run(tmp_path / "whole", *arguments)
    averaged_run(tmp_path / "cut", *arguments, "--train.max_steps", "8")
    averaged_run(tmp_path / "cut", *arguments, "--train.max_steps", "8", "--eval.num_images", "5")
    averaged_run(tmp_path / "cut", *arguments, "--train.max_steps", "10")
    cut = averaged_run(tmp_path / "cut", *arguments)
    assert all(torch.equal(averages[0][name], averages[-1][name]) for name in averages[0])
    for part in ("model", "average"):
        assert all(torch.equal(whole[part][name], cut[part][name]) for name in whole[part])

"""The step's options, each against what it stands for: accumulation, averages, precision, compilation, profiles."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from fastmagn import models
from fastmagn.errors import InputError
from fastmagn.evaluation.run import evaluate_run
from fastmagn.runs.checkpoint import config_sha256, read_checkpoint
from fastmagn.runs.checksum import add_checksum
from fastmagn.runs.failures import explain_failures
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training import loop
from fastmagn.training.ema import make_average, update_average
from fastmagn.training.run import train
from fastmagn.training.step import Run
from tests.helpers.small_runs import config_for, knows_the_network
from tests.helpers.steps import start_run, take_steps
from tests.helpers.tiers import slow_but

SMALL = ["--train.batch_size", "32", "--device", "cpu", "--train.amp", "float32", "--eval.num_images", "20"]
small = partial(config_for, SMALL)


def start(run_dir: Path, *arguments: str) -> Run:
    return start_run(small(run_dir, *arguments))


def plain_network(num_classes: int) -> nn.Module:
    """No batch normalisation: what an image gives does not depend on the others."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(8 * 64, num_classes))


class ReadsInOrder(nn.Module):
    """Needs feature maps with channels first in memory, as `view` does."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 8, 3, stride=4), nn.Linear(8 * 64, num_classes)

    def forward(self, images):
        assert images.is_contiguous()
        maps = self.convolution(images)
        return self.head(maps.view(len(maps), -1))


@pytest.mark.parametrize("method", ["magn", "at", "mixup"])
def test_channels_first_reach_the_network(method, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "in_order", "tests.training.test_step:ReadsInOrder")
    run = start(tmp_path, "--method", method, "--model.name", "in_order", "--train.channels_last", "false")
    assert take_steps(run, 1)[0]["loss"] > 0


@pytest.mark.parametrize("pieces", [2, 8])
def test_accumulated_pieces_are_the_whole_batch(pieces, tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "plain", "tests.training.test_step:plain_network")
    whole = start(tmp_path, "--model.name", "plain")
    cut = start(tmp_path, "--model.name", "plain", "--train.accumulation_steps", str(pieces))
    for expected, made in zip(take_steps(whole, 3), take_steps(cut, 3), strict=True):
        assert made == pytest.approx(expected, rel=1e-5, abs=1e-7)
    for expected, made in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-7)


def test_the_average_is_the_recurrence_in_float64():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    average = make_average(model)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in range(30):
        model(torch.randn(8, 3, 5, 5))  # moves the running statistics
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()
        update_average(average, model, 0.9, step)
    for name, value in average.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert value == 30
        else:
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_the_average_is_kept_measured_and_resumed(tmp_path):
    arguments = ["--train.ema_decay", "0.95", "--train.epochs", "1", "--eval.corruption_set", "c15"]
    whole = train(small(tmp_path / "whole", *arguments, "--train.max_steps", "9"))
    train(small(tmp_path / "cut", *arguments, "--train.max_steps", "5"))
    resumed = train(small(tmp_path / "cut", *arguments, "--train.max_steps", "9"))
    assert resumed["clean_accuracy"] == whole["clean_accuracy"]
    first, second = (
        read_checkpoint(last_checkpoint(tmp_path / name), torch.device("cpu")) for name in ("whole", "cut")
    )
    for part in ("model", "average"):
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
    assert not torch.equal(first["average"]["network.head.weight"], first["model"]["network.head.weight"])
    ema = small(tmp_path / "whole", *arguments, "--train.max_steps", "9", "--eval.weights", "ema")
    assert evaluate_run(tmp_path / "whole", ema)["clean_accuracy"] == train(ema)["clean_accuracy"]


def test_an_average_that_is_not_kept_cannot_be_measured(tmp_path):
    message = "eval.weights: got 'ema'; expected last, or a train.ema_decay or train.swa_fraction above 0."
    with pytest.raises(InputError) as error:
        small(tmp_path, "--eval.weights", "ema")
    assert message in str(error.value)
    train(small(tmp_path / "run", "--train.max_steps", "1", "--eval.corruption_set", "c15"))
    with pytest.raises(InputError, match=r"eval\.weights: got 'ema'; expected last, as .*last\.pt was trained with"):
        evaluate_run(tmp_path / "run", small(tmp_path / "run", "--eval.weights", "ema", "--train.ema_decay", "0.9"))


@pytest.mark.slow
def test_float16_trains_with_a_scaler(tmp_path):
    run = start(tmp_path, "--train.amp", "fp16", "--train.max_steps", "5")
    before = [parameter.clone() for parameter in run.model.parameters()]
    losses = [parts["loss"] for parts in take_steps(run, 5)]
    assert np.isfinite(losses).all()
    assert run.scaler.is_enabled()
    assert run.scaler.get_scale() > 1
    assert any(not torch.equal(old, new) for old, new in zip(before, run.model.parameters(), strict=True))
    expected = [parts["loss"] for parts in take_steps(start(tmp_path), 5)]
    assert losses[0] == pytest.approx(expected[0], rel=1e-2)


@pytest.mark.parametrize("backend", slow_but(["aot_eager", "inductor"], "aot_eager"))
def test_twenty_compiled_steps_equal_eager(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    knows_the_network(monkeypatch)
    arguments = ["--model.name", "smooth", "--optim.schedule", "step", "--optim.lr", "0.05"]
    expected = take_steps(start(tmp_path, *arguments), 20)
    made = take_steps(start(tmp_path, *arguments, "--train.compile", "true"), 20)
    for step, (eager, compiled) in enumerate(zip(expected, made, strict=True)):
        assert compiled["loss"] == pytest.approx(eager["loss"], rel=1e-4), step
    assert expected[-1]["loss"] < expected[0]["loss"] - 0.05


@pytest.mark.parametrize("bn_views", ["joint", "per_view"])
@pytest.mark.parametrize("backend", slow_but(["aot_eager", "inductor"], "aot_eager"))
def test_a_compiled_step_is_one_graph_that_is_never_compiled_again(backend, bn_views, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    counters.clear()
    run = start(tmp_path, "--train.compile", "true", "--model.bn_views", bn_views)
    assert np.isfinite([parts["loss"] for parts in take_steps(run, 6)]).all()
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert not counters["recompiles"]


def test_a_profile_leaves_a_trace_and_a_summary(tmp_path):
    train(small(tmp_path / "run", "--train.profile", "2", "--train.max_steps", "8", "--eval.corruption_set", "c15"))
    trace = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())
    names = {event.get("name", "") for event in trace["traceEvents"]}
    assert any(name.startswith("ProfilerStep") for name in names)
    assert any("conv" in name for name in names)
    assert "aten::" in (tmp_path / "run" / "profile" / "summary.txt").read_text()


def test_deterministic_mode_asks_for_it(tmp_path):
    try:
        arguments = ["--train.deterministic", "true", "--train.max_steps", "1", "--eval.corruption_set", "c15"]
        train(small(tmp_path / "run", *arguments))
        assert torch.are_deterministic_algorithms_enabled()
        train(small(tmp_path / "other", "--train.max_steps", "1", "--eval.corruption_set", "c15"))
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "train.batch_size: got 32 in 1 piece(s); the memory of cpu is too small for that. Lower it, or raise "
            "train.accumulation_steps.",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
            "train.batch_size: got 32 in 1 piece(s); the memory of cpu is too small for that. Lower it, or raise "
            "train.accumulation_steps.",
        ),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`"),
            "device: cpu failed (CUDA error: an illegal memory access was encountered); nothing has been saved yet.",
        ),
    ],
)
def test_what_the_machine_does_is_explained(failure, message, tmp_path):
    with pytest.raises(InputError) as error, explain_failures(small(tmp_path)):
        raise failure
    assert str(error.value) == message


def test_other_failures_stay_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), explain_failures(small(tmp_path)):
        raise RuntimeError("shapes do not fit")


@pytest.mark.parametrize(("part", "step"), [("consistency", 3), ("loss", 0)])
def test_what_is_not_finite_stops_with_its_part_step_and_checkpoint(part, step, tmp_path, monkeypatch):
    """From some step on one part is NaN, and with it the loss."""
    honest = loop.train_step

    def poisoned(run: Run, pieces: list, number: int) -> dict[str, torch.Tensor]:
        parts = honest(run, pieces, number)
        return parts | dict.fromkeys({part, "loss"}, torch.tensor(float("nan"))) if number >= step else parts

    monkeypatch.setattr(loop, "train_step", poisoned)
    arguments = ["--train.max_steps", "6", "--train.checkpoint_every_steps", "2"]
    with pytest.raises(InputError) as error:
        train(small(tmp_path / "run", *arguments))
    checkpoint = last_checkpoint(tmp_path / "run")
    good = f"the last good checkpoint is {checkpoint}" if step else "there is no checkpoint yet"
    assert str(error.value) == (
        f"{part}: got a value that is not finite at step {step} (epoch 1); expected a finite number. Lower optim.lr "
        f"(it is 0.1); {good}."
    )
    if step:
        state = read_checkpoint(checkpoint, torch.device("cpu"))
        assert state["progress"]["step_in_epoch"] == 2
        assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_fields_younger_than_a_checkpoint_have_their_defaults(tmp_path):
    config = small(tmp_path / "run", "--train.max_steps", "1", "--eval.corruption_set", "c15")
    train(config)
    path = last_checkpoint(tmp_path / "run")
    state = read_checkpoint(path, torch.device("cpu"))
    del state["config"]["train.ema_decay"]
    state["config_sha256"] = config_sha256(state["config"])
    with path.open("w+b") as file:
        torch.save(state, file)
        add_checksum(file, state["step"])
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, max_steps=2))
    assert train(longer)["steps"] == 2

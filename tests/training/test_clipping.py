"""`optim.clip_norm` against a step that is clipped by hand in float64, and what it must not depend on."""

import copy
import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from fastmagn import models
from fastmagn.training.step import Run, make_pieces, prepared, train_step
from tests.helpers.small_runs import config_for
from tests.helpers.steps import start_run, take_steps

SMALL = [
    *("--train.batch_size", "32", "--device", "cpu", "--train.amp", "float32", "--train.compile", "false"),
    *("--model.name", "plain", "--method", "standard", "--optim.schedule", "step", "--optim.lr", "0.1"),
]
small = partial(config_for, SMALL)
OPTIMIZERS = ["sgd", "muon", "adamw"]
CLIP_NORM = 0.05  # the gradients of the first steps are some times as long


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setitem(models.MODELS, "plain", "tests.training.test_step:plain_network")


def start(run_dir: Path, clip_norm: float, *arguments: str) -> Run:
    return start_run(small(run_dir, "--optim.clip_norm", str(clip_norm), *arguments))


def first_pieces(run: Run) -> list[Any]:
    run.model.train()
    return make_pieces(run, next(iter(run.source.batches(0))), 0)


def weights_of(run: Run) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def assert_close(run: Run, other: Run, **tolerance: float) -> None:
    torch.testing.assert_close(weights_of(run), weights_of(other), **tolerance)


def assert_clips(run: Run, *arguments: str) -> None:
    """Without clipping the weights would be others."""
    unclipped = start(Path("unused"), 0, *arguments)
    take_steps(unclipped, 3)
    assert max((a - b).abs().max().item() for a, b in zip(weights_of(run), weights_of(unclipped), strict=True)) > 1e-3


def test_a_step_is_the_one_that_is_clipped_by_hand_in_float64(tmp_path):
    run = start(tmp_path, CLIP_NORM, "--optim.momentum", "0.9", "--optim.weight_decay", "0.01")
    pieces = first_pieces(run)
    model = copy.deepcopy(run.model).double()
    views, labels = prepared(run, pieces[0])
    functional.cross_entropy(model(views.double()), labels).backward()
    norm = math.sqrt(sum(float(value) ** 2 for p in model.parameters() for value in p.grad.flatten()))
    assert norm > 3 * CLIP_NORM
    expected = []
    for parameter in model.parameters():
        moved = parameter.grad * (CLIP_NORM / norm) + 0.01 * parameter.detach()
        expected.append(parameter.detach() - 0.1 * (moved + 0.9 * moved))
    train_step(run, pieces, 0)
    torch.testing.assert_close([weight.double() for weight in weights_of(run)], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_accumulated_pieces_are_clipped_as_the_whole_batch(optimizer, tmp_path):
    arguments = ("--optim.name", optimizer)
    whole = start(tmp_path, CLIP_NORM, *arguments)
    cut = start(tmp_path, CLIP_NORM, *arguments, "--train.accumulation_steps", "2")
    for run in (whole, cut):
        take_steps(run, 3)
    assert_close(cut, whole, rtol=1e-5, atol=1e-6)
    assert_clips(whole, *arguments)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_huge_norm_clips_nothing(optimizer, tmp_path):
    huge, none = (start(tmp_path, norm, "--optim.name", optimizer) for norm in (1e9, 0))
    for run in (huge, none):
        take_steps(run, 3)
    assert_close(huge, none, rtol=0, atol=0)


def in_fp16(run_dir: Path, optimizer: str, scale: float) -> Run:
    run = start(run_dir, CLIP_NORM, "--optim.name", optimizer, "--train.amp", "fp16")
    return dataclasses.replace(run, scaler=torch.amp.GradScaler("cpu", init_scale=scale))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_scale_does_not_change_what_is_clipped(optimizer, tmp_path):
    more, less = (in_fp16(tmp_path, optimizer, scale) for scale in (1024.0, 64.0))
    first = weights_of(more)
    for run in (more, less):
        take_steps(run, 3)
    for before, one, other in zip(first, weights_of(more), weights_of(less), strict=True):
        assert (one - other).norm() < 0.05 * (one - before).norm()
    assert_clips(more, "--optim.name", optimizer)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_overflows_is_skipped_and_the_next_is_not(optimizer, tmp_path):
    run = in_fp16(tmp_path, optimizer, 2.0**100)
    before = weights_of(run)
    take_steps(run, 1)
    torch.testing.assert_close(weights_of(run), before, rtol=0, atol=0)
    assert run.scaler.get_scale() == 2.0**99
    run.scaler.update(1.0)
    fresh = in_fp16(tmp_path, optimizer, 1.0)
    for each in (run, fresh):
        take_steps(each, 2)
    assert_close(run, fresh, rtol=0, atol=0)


class Reads(TorchDispatchMode):
    """Fails where the host reads a tensor's value, for which it would wait for a device."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), options: dict | None = None) -> Any:
        assert not any(name in function.name() for name in ("_local_scalar_dense", "is_nonzero", "aten::equal"))
        return function(*arguments, **(options or {}))


def test_clipping_waits_for_nothing(tmp_path):
    run = start(tmp_path, CLIP_NORM)
    pieces = first_pieces(run)
    with Reads():
        train_step(run, pieces, 0)

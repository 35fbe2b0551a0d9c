"""Functions that a training calls: what they get, and that they change nothing."""

import json
from pathlib import Path

import pytest
import torch

from fastmagn.train import train
from fastmagn.training.callbacks import Callbacks, EpochDone, StepDone
from tests.helpers.processes import TWO_PROCESSES, run
from tests.helpers.small_runs import STEPS_PER_EPOCH, assert_ends_alike, knows_the_network, rows, small, state

STEPS = 2 * STEPS_PER_EPOCH


class Seen:
    """Remembers what it was given, and meddles with what does not matter."""

    def __init__(self) -> None:
        self.steps: list[StepDone] = []
        self.epochs: list[EpochDone] = []
        self.callbacks = Callbacks(on_step=self.on_step, on_epoch=self.on_epoch)

    def on_step(self, done: StepDone) -> None:
        assert done.model.training
        self.steps.append(done)
        done.model.eval()
        torch.rand(3)

    def on_epoch(self, done: EpochDone) -> None:
        assert done.model.training
        self.epochs.append(done._replace(row=dict(done.row)))
        done.row.clear()
        done.model.eval()
        with torch.inference_mode():
            assert done.model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.fixture(autouse=True)
def network(monkeypatch):
    knows_the_network(monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        knows_the_network(patched)
        run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
        train(small(run_dir))
    return run_dir


def test_they_are_given_every_step_and_row(tmp_path, undisturbed):
    seen = Seen()
    train(small(tmp_path / "run"), callbacks=seen.callbacks)
    assert [(done.step, done.epoch) for done in seen.steps] == [(n + 1, n // STEPS_PER_EPOCH) for n in range(STEPS)]
    assert {(done.last_step, done.rank, done.num_processes) for done in seen.steps} == {(STEPS, 0, 1)}
    assert [done.row for done in seen.epochs] == rows(tmp_path / "run")
    for epoch, done in enumerate(seen.epochs):
        losses = [float(step.parts["loss"]) for step in seen.steps if step.epoch == epoch]
        assert done.row["loss"] == pytest.approx(sum(losses) / STEPS_PER_EPOCH)
        assert done.epochs == 2
    assert_ends_alike(tmp_path / "run", undisturbed)


def test_a_run_with_them_resumes_bit_for_bit(tmp_path, undisturbed):
    first, second = Seen(), Seen()
    train(small(tmp_path / "run", "--train.max_steps", "3"), callbacks=first.callbacks)
    assert [done.row["step"] for done in first.epochs] == [3]
    train(small(tmp_path / "run"), callbacks=second.callbacks)
    assert [done.step for done in second.steps] == list(range(4, STEPS + 1))
    assert_ends_alike(tmp_path / "run", undisturbed)


def test_an_exception_ends_the_training_and_the_checkpoint_stays(tmp_path, undisturbed):
    def fail(done: StepDone) -> None:
        if done.step == STEPS_PER_EPOCH + 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(small(tmp_path / "run"), callbacks=Callbacks(on_step=fail))
    assert state(tmp_path / "run")["step"] == STEPS_PER_EPOCH
    train(small(tmp_path / "run"))
    assert_ends_alike(tmp_path / "run", undisturbed)


PROGRAM = """
import json
import os
import sys
from fastmagn.config.command_line import parse_config
from fastmagn.train import train
from fastmagn.training.callbacks import Callbacks

calls = []
callbacks = Callbacks(
    on_step=lambda done: calls.append(["step", done.step, done.rank, done.num_processes]),
    on_epoch=lambda done: calls.append(["epoch", done.row["step"], done.rank, done.row["loss"]]),
)
train(parse_config(sys.argv[1:], "test", ""), callbacks)
with open(f"calls-{os.environ['RANK']}.json", "w") as file:
    json.dump(calls, file)
"""


@pytest.mark.process
def test_every_process_calls_them(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    short = ["--device", "cpu", "--method", "standard", "--train.batch_size", "64", "--train.max_steps", "2"]
    short += ["--eval.num_images", "2", "--eval.corruption_set", "c15", "--run_dir", "run"]
    run([*TWO_PROCESSES, "program.py", *short], tmp_path)
    losses = []
    for rank in (0, 1):
        *steps, epoch = json.loads((tmp_path / f"calls-{rank}.json").read_text())
        assert steps == [["step", 1, rank, 2], ["step", 2, rank, 2]]
        assert epoch[:3] == ["epoch", 2, rank]
        losses.append(epoch[3])
    assert losses[0] == losses[1] == rows(tmp_path / "run")[0]["loss"], "means over all processes"

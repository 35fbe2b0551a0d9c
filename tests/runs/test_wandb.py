"""Weights & Biases: what it is told, that a resumed run keeps its name there, and that nothing happens unasked."""

import importlib.util
import sys
import types
from functools import partial
from typing import Any

import pytest

from fastmagn.errors import InputError
from fastmagn.runs.wandb import run_id
from fastmagn.training.callbacks import Callbacks, EpochDone
from fastmagn.training.run import train
from tests.helpers.processes import run
from tests.helpers.small_runs import config_for, rows

SMALL = [
    *("--method", "standard", "--train.batch_size", "512", "--train.epochs", "2", "--device", "cpu"),
    *("--eval.num_images", "4", "--eval.corruption_set", "c15"),
]
small = partial(config_for, SMALL)


class FakeRun:
    """Keeps what a run of W&B is told."""

    def __init__(self, package: types.ModuleType, begun_with: dict[str, Any]) -> None:
        self.package, self.begun_with = package, begun_with
        self.rows: list[tuple[int, dict]] = []
        self.summary: dict[str, Any] = {}
        self.finished = False

    def log(self, row: dict, step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        self.finished, self.package.run = True, None


@pytest.fixture
def package(monkeypatch) -> types.ModuleType:
    """A module in wandb's place; `runs` are those that were begun."""
    fake = types.ModuleType("wandb")
    fake.run, fake.runs = None, []

    def init(**begun_with: Any) -> FakeRun:
        fake.run = FakeRun(fake, begun_with)
        fake.runs.append(fake.run)
        return fake.run

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_it_is_told_the_config_every_epoch_and_the_results(package, tmp_path):
    results = train(small(tmp_path / "run", "--train.wandb_project", "robust"))
    (told,) = package.runs
    assert (told.begun_with["project"], told.begun_with["name"]) == ("robust", "run")
    assert told.begun_with["resume"] == "allow"
    assert told.begun_with["dir"] == str(tmp_path / "run")
    assert told.begun_with.keys() == {"project", "name", "id", "resume", "dir", "config"}
    assert told.begun_with["config"]["train.batch_size"] == 512
    assert told.rows == list(enumerate(rows(tmp_path / "run")))
    assert [epoch for epoch, _ in told.rows] == [0, 1]
    assert told.summary["mca"] == results["mca"]
    assert told.summary["clean_accuracy"] == results["clean_accuracy"]
    assert told.finished


def test_a_resumed_run_goes_on_under_its_own_name(package, tmp_path):
    train(small(tmp_path / "run", "--train.wandb_project", "robust", "--train.max_steps", "2"))
    train(small(tmp_path / "run", "--train.wandb_project", "robust"))
    first, second = package.runs
    assert first.begun_with["id"] == second.begun_with["id"] == run_id(tmp_path / "run")
    assert [step for step, _ in second.rows] == [1]
    assert run_id(tmp_path / "other") != run_id(tmp_path / "run")


def test_the_run_after_one_that_failed_has_its_own(package, tmp_path):
    def fail(done: EpochDone) -> None:
        raise InputError("stop")

    arguments = ["--train.wandb_project", "robust"]
    with pytest.raises(InputError, match="stop"):
        train(small(tmp_path / "one", *arguments), Callbacks(on_epoch=fail))
    train(small(tmp_path / "two", *arguments))
    one, two = package.runs
    assert (one.begun_with["name"], two.begun_with["name"]) == ("one", "two")
    assert one.finished
    assert two.finished
    assert [epoch for epoch, _ in one.rows] == [0]
    assert [epoch for epoch, _ in two.rows] == [0, 1]


def test_a_run_that_the_user_has_begun_is_told_and_left_open(package, tmp_path):
    own = package.init(name="own")
    results = train(small(tmp_path / "run", "--train.wandb_project", "robust"))
    assert package.runs == [own]
    assert [epoch for epoch, _ in own.rows] == [0, 1]
    assert own.summary["mca"] == results["mca"]
    assert not own.finished


def test_its_failures_are_warnings(package, tmp_path, monkeypatch, capsys):
    def fail(self: FakeRun, row: dict, step: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FakeRun, "log", fail)
    monkeypatch.setattr(FakeRun, "finish", lambda self: 1 / 0)
    train(small(tmp_path / "run", "--train.wandb_project", "robust"))
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("W&B: not logged (OSError: [Errno 28] No space left on device). The run continues.") == 2
    assert "W&B: not logged (ZeroDivisionError: division by zero)" in output
    assert len(rows(tmp_path / "run")) == 2


def test_nothing_happens_unasked(package, tmp_path):
    train(small(tmp_path / "run", "--train.max_steps", "1"))
    assert package.runs == []


def test_its_absence_is_one_line_before_training(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        InputError, match=r"train\.wandb_project: needs the package wandb; pip install 'fastmagn\[wandb\]'"
    ):
        train(small(tmp_path / "run", "--train.wandb_project", "robust"))
    assert not (tmp_path / "run").exists()


@pytest.mark.process
@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None,
    reason="the package wandb is not installed: not covered that it takes these arguments, and what it keeps offline",
)
def test_the_package_itself_without_a_network(tmp_path):
    """Offline, W&B keeps the run in RUN/wandb, to be sent later by `wandb sync`."""
    command = ["fastmagn.train", *SMALL, "--run_dir", "run", "--train.wandb_project", "robust"]
    run(command, tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert kept.name.endswith(run_id(tmp_path / "run"))
    assert list(kept.glob("*.wandb"))

"""What trials get of the machine, without Ray: cores, threads, GPUs, how many run at a time; and what signals do."""

import os
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastmagn.config.command_line import parse_config
from fastmagn.errors import InputError, Interrupted
from fastmagn.sweeping import on_ray
from fastmagn.sweeping.arguments import Machines, parse_arguments
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.shown import Board
from fastmagn.sweeping.sweep import finish_sweep, run_unfinished
from fastmagn.sweeping.trial import Outcome
from tests.helpers.report_folders import write_run

NAMES = ("seed-0", "seed-1")


class FakeRay:
    """Hosts with these cores and GPUs; actors are called at once."""

    def __init__(self, *hosts: tuple[float, float]) -> None:
        self.hosts = hosts

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": sum(cpus for cpus, _ in self.hosts), "GPU": sum(gpus for _, gpus in self.hosts)}

    def nodes(self) -> list[dict]:
        alive = [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in self.hosts]
        return [*alive, {"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 1000.0}}]

    def remote(self, num_cpus: int) -> Any:
        assert num_cpus == 0  # asking whether to stop takes no core from the trials

        def actor(kind: type) -> SimpleNamespace:
            made = kind()
            calls = {name: SimpleNamespace(remote=getattr(made, name)) for name in ("set", "read")}
            return SimpleNamespace(remote=lambda: SimpleNamespace(**calls))

        return actor

    def get(self, value: object) -> object:
        return value


class FakeTune:
    """Runs the trials one after another, and keeps what it was asked for; `before_last` is called before the last."""

    Callback = Stopper = object

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.before_last = lambda: None

    def with_resources(self, trainable: Any, resources: dict[str, float]) -> Any:
        self.asked |= resources
        return trainable

    def grid_search(self, values: list[str]) -> list[str]:
        return values

    def TuneConfig(self, max_concurrent_trials: int | None) -> None:
        self.asked["at a time"] = max_concurrent_trials

    def RunConfig(self, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(**options)

    def report(self, result: dict[str, Any]) -> None:
        self.result = result

    def Tuner(self, trainable: Any, param_space: dict, tune_config: None, run_config: SimpleNamespace) -> Any:
        (watch,) = run_config.callbacks

        def fit() -> None:
            *first, last = param_space["run_dir"]
            for run_dir in (*first, last):
                if run_dir is last:
                    self.before_last()
                if run_config.stop.stop_all():
                    return
                trial = SimpleNamespace(config={"run_dir": run_dir})
                watch.on_trial_start(0, [], trial)
                trainable(trial.config)
                watch.on_trial_result(0, [], trial, self.result)

        return SimpleNamespace(fit=fit)


@pytest.fixture
def tune(monkeypatch) -> FakeTune:
    """In place of Ray Tune, on one host of 8 cores and 4 GPUs; `asked` also has the threads of each trial."""
    fake = FakeTune()

    def run_trial(run_dir: Path, folder: Path, threads: int, should_stop: Any, imports: Path | None) -> Outcome:
        fake.asked["threads"] = threads
        return Outcome(run_dir.name, "interrupted" if should_stop() else "finished")

    monkeypatch.setattr(on_ray, "ray", FakeRay((8.0, 4.0)))
    monkeypatch.setattr(on_ray, "tune", fake)
    monkeypatch.setattr(on_ray, "run_trial", run_trial)
    monkeypatch.setattr(on_ray, "_connected", lambda address: nullcontext())
    return fake


def board_of(folder: Path, device: str) -> Board:
    configs = {name: parse_config(["--device", device, "--run_dir", str(folder / name)], "test", "") for name in NAMES}
    return Board([Trial(name, {}, config) for name, config in configs.items()], set())


def machines(*options: str) -> Machines:
    return parse_arguments(["--grid", "train.seed=0,1", *options]).machines


@pytest.mark.parametrize(
    ("options", "device", "expected"),
    [
        ([], "auto", {"cpu": 1, "gpu": 1, "threads": 1, "at a time": None}),
        ([], "cpu", {"cpu": 1, "gpu": 0, "threads": 1, "at a time": None}),
        (["--gpus_per_trial", "0.5"], "auto", {"cpu": 1, "gpu": 0.5, "threads": 1, "at a time": None}),
        (["--gpus_per_trial", "2"], "cpu", {"cpu": 1, "gpu": 2, "threads": 1, "at a time": None}),
        (["--gpus_per_trial", "0"], "auto", {"cpu": 1, "gpu": 0, "threads": 1, "at a time": None}),
        (["--cpus_per_trial", "4"], "cpu", {"cpu": 4, "gpu": 0, "threads": 4, "at a time": None}),
        (["--cpus_per_trial", "2.5"], "cpu", {"cpu": 2.5, "gpu": 0, "threads": 2, "at a time": None}),
        (["--cpus_per_trial", "0.5"], "cpu", {"cpu": 0.5, "gpu": 0, "threads": 1, "at a time": None}),
        (["--max_concurrent", "3"], "cpu", {"cpu": 1, "gpu": 0, "threads": 1, "at a time": 3}),
    ],
)
def test_a_trial_gets_what_the_options_say(options, device, expected, tune, tmp_path):
    assert run_unfinished(board_of(tmp_path, device), machines(*options)) == 0
    assert tune.asked == expected


def test_without_gpus_a_trial_needs_none(tune, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "ray", FakeRay((8.0, 0.0)))
    assert run_unfinished(board_of(tmp_path, "auto"), machines()) == 0
    assert tune.asked["gpu"] == 0


@pytest.mark.parametrize(
    ("options", "hosts", "message"),
    [
        (
            ["--cpus_per_trial", "9"],
            [(8.0, 4.0), (6.0, 8.0)],
            "--cpus_per_trial: got 9; expected at most 8, which is what the largest host has.",
        ),
        (
            ["--gpus_per_trial", "10"],
            [(8.0, 4.0), (6.0, 8.0)],
            "--gpus_per_trial: got 10; expected at most 8, which is what the largest host has.",
        ),
        (
            ["--cpus_per_trial", "8", "--gpus_per_trial", "5"],
            [(8.0, 4.0), (6.0, 8.0)],
            "--cpus_per_trial: got 8 with 5 GPUs; no single host has both.",
        ),
    ],
)
def test_what_no_host_has_is_one_line_before_any_trial(options, hosts, message, tune, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "ray", FakeRay(*hosts))
    with pytest.raises(InputError) as error:
        run_unfinished(board_of(tmp_path, "auto"), machines(*options))
    assert str(error.value) == message
    assert tune.asked == {}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_lets_no_further_trial_start_and_is_the_exit_status(number, status, tune, tmp_path, capsys):
    tune.before_last = lambda: os.kill(os.getpid(), number)
    write_run(tmp_path / "seed-0", 0.75, clean=0.9)
    board = board_of(tmp_path, "cpu")
    came = run_unfinished(board, machines())
    assert came == number
    assert board.states == {"seed-0": "finished", "seed-1": "waiting"}
    with pytest.raises(Interrupted) as error:
        finish_sweep(list(board.trials.values()), board, tmp_path, came)
    assert error.value.exit_status == status
    shown = capsys.readouterr().out
    assert "90.00" in shown.split("trials by mCA")[1]
    assert "interrupted: 1 of 2 trials finished; the same command resumes the sweep" in shown
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_running_trial_is_told_of_a_signal(number, tune, tmp_path, monkeypatch):
    told = []

    def run_trial(run_dir: Path, folder: Path, threads: int, should_stop: Any, imports: Path | None) -> Outcome:
        before = should_stop()
        os.kill(os.getpid(), number)
        told.append((before, should_stop()))
        return Outcome(run_dir.name, "interrupted")

    monkeypatch.setattr(on_ray, "run_trial", run_trial)
    assert run_unfinished(board_of(tmp_path, "cpu"), machines()) == number
    assert told == [(False, True)]

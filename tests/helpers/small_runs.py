"""Runs of a second or two on the digits, two epochs of four steps, and what is compared of them."""

import fcntl
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from fastmagn import models
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import last_checkpoint
from tests.helpers import smooth_network

STEPS_PER_EPOCH = 4
TIMES = {"epoch_s", "images_per_s", "wall_s", "wall_images_per_s"}  # of a row
SHORT = [
    *("--device", "cpu", "--train.batch_size", "256", "--train.epochs", "2"),
    *("--eval.corruption_set", "c15", "--eval.num_bins", "3"),
]
# The default method on the default network.
DEFAULT = [*SHORT, "--eval.num_images", "20"]
# For bit-for-bit comparisons across interruptions and processes: no rounding grows in this network.
SMOOTH = [
    *(*SHORT, "--eval.num_images", "4", "--data.num_validation_images", "100"),
    *("--model.name", smooth_network.NAME, "--method", "augmix", "--train.amp", "float32"),
]


def config_for(base: Sequence[str], run_dir: Path, *arguments: str) -> Config:
    """The config of a run in `run_dir`: the arguments `base`, and `arguments` over them."""
    return parse_config([*base, "--run_dir", str(run_dir), *arguments], "test", "A test.")


small = partial(config_for, SMOOTH)
small_default = partial(config_for, DEFAULT)


def knows_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, smooth_network.NAME, smooth_network.WHERE)


def measures_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every set of corruptions is one corruption, for tests that compare nothing that is measured."""
    for name in CORRUPTION_SETS:
        monkeypatch.setitem(CORRUPTION_SETS, name, ("fog",))


def session_folder(tmp_path_factory: pytest.TempPathFactory, config: pytest.Config) -> Path:
    """The temporary folder of the test session; a worker of pytest-xdist has one of its own in it."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(config, "workerinput") else base


def made_once(
    tmp_path_factory: pytest.TempPathFactory, config: pytest.Config, name: str, make: Callable[[Path], object]
) -> Path:
    """The folder that `make` fills, made by the first process of the test session that asks for it.

    Nobody may write to it: tests that change it, or that run a command on it, copy it.
    """
    base = session_folder(tmp_path_factory, config) / "made-once"
    folder, done = base / name, base / f"{name}.done"
    folder.parent.mkdir(exist_ok=True)
    with done.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed at it
            make(folder)
            done.touch()
    return folder


def state(run_dir: Path) -> dict[str, Any]:
    return read_checkpoint(last_checkpoint(run_dir), torch.device("cpu"))


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return state(run_dir)["model"]


def results(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "results.json").read_text())


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def assert_same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def assert_ends_alike(run_dir: Path, undisturbed: Path) -> None:
    """The same weights and optimiser, bit for bit, and the same rows but for times."""
    ours, theirs = state(run_dir), state(undisturbed)
    for name, value in theirs["model"].items():
        assert torch.equal(ours["model"][name], value), name
    for index, entry in theirs["optimizer"]["state"].items():
        for name, value in entry.items():
            assert torch.equal(ours["optimizer"]["state"][index][name], value), (index, name)
    assert without_times(rows(run_dir)) == without_times(rows(undisturbed))
    assert not list(run_dir.rglob("*.partial-*"))

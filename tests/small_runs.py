"""Runs of a second or two, for the tests of what interrupts them: two epochs of four steps on the digits."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from numba import config

from fastmagn import models
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import last_checkpoint
from tests import smooth_network

ROOT = Path(__file__).parent.parent
STEPS_PER_EPOCH = 4
ARGUMENTS = [
    *("--model.name", smooth_network.NAME, "--method", "augmix", "--device", "cpu", "--train.amp", "float32"),
    *("--train.batch_size", "256", "--train.epochs", "2", "--data.num_validation_images", "100"),
    *("--eval.num_images", "4", "--eval.corruption_set", "c15", "--eval.num_bins", "3"),
]
COMMAND = [sys.executable, "-m", "tests.smooth_network", *ARGUMENTS]


def knows_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, smooth_network.NAME, smooth_network.WHERE)


def small(run_dir: Path, *arguments: str) -> Config:
    return parse_config([*ARGUMENTS, "--run_dir", str(run_dir), *arguments], "test", "A test.")


def command_environment(threads: int = config.NUMBA_NUM_THREADS) -> dict[str, str]:
    """On as many threads as this process, which are those of PyTorch once numba's kernels have run: sums of floats
    depend on how many there are.
    """
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return {**os.environ, "PYTHONPATH": paths} | dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))


def state(run_dir: Path) -> dict[str, Any]:
    return read_checkpoint(last_checkpoint(run_dir), torch.device("cpu"))


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("epoch_s", "images_per_s")} for row in rows]


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

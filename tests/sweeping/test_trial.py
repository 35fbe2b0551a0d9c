"""A trial's process, without Ray: it trains, says why it failed, and saves when it is asked to stop."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastmagn.config.command_line import parse_config
from fastmagn.config.text import to_yaml
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import last_checkpoint
from fastmagn.sweeping.trial import LOG, Outcome, error_line, run_trial

SMALL = [
    *("--method", "standard", "--train.batch_size", "32", "--train.epochs", "2", "--device", "cpu"),
    *("--train.amp", "float32", "--eval.num_images", "4", "--eval.corruption_set", "c15"),
]


def make_folder(run_dir: Path, *arguments: str) -> Path:
    config = parse_config([*SMALL, *arguments, "--run_dir", str(run_dir)], "test", "A test.")
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(to_yaml(config))
    return run_dir


def test_a_trial_asked_to_stop_saves_and_is_interrupted(tmp_path):
    run_dir = make_folder(tmp_path / "run", "--train.checkpoint_every_steps", "1", "--train.epochs", "2000")
    outcome = run_trial(run_dir, tmp_path, 1, lambda: last_checkpoint(run_dir).exists())
    assert outcome == Outcome("run", "interrupted")
    assert "resumes from the last checkpoint" in (run_dir / LOG).read_text()
    progress = read_checkpoint(last_checkpoint(run_dir), torch.device("cpu"))["progress"]
    assert progress["epoch"] < 2000


def test_a_trial_that_fails_says_why_in_one_line(tmp_path):
    run_dir = make_folder(tmp_path / "run", "--data.name", "cifar10", "--data.dir", str(tmp_path / "nowhere"))
    outcome = run_trial(run_dir, tmp_path, 1, lambda: False)
    assert (outcome.name, outcome.state) == ("run", "failed")
    assert "nowhere" in outcome.error
    assert "\n" not in outcome.error


@pytest.mark.parametrize(
    ("log", "status", "expected"),
    [
        ("epoch 1\nerror: data.dir: no such folder\nlast words\n", 2, "data.dir: no such folder"),
        ("Traceback\n  line 3\nIndexError: index 5\n", 1, "IndexError: index 5"),
        ("", 3, "exit status 3"),
        ("", -9, "ended by SIGKILL"),
        ("epoch 1\n", -11, "ended by SIGSEGV after: epoch 1"),
    ],
)
def test_the_line_of_a_failure(log, status, expected, tmp_path):
    path = tmp_path / LOG
    path.write_text("error: of an earlier attempt\n" + log)
    assert error_line(path, len("error: of an earlier attempt\n"), status) == expected


def test_a_trial_whose_parent_is_gone_leaves_at_once():
    command = [sys.executable, "-m", "fastmagn.sweeping.trial", "1", "--config", "absent.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert "absent" not in done.stderr

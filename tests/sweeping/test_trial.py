"""A trial's process, without Ray: it trains, says why it failed, and saves when it is asked to stop."""

from pathlib import Path

import pytest

from fastmagn.config.text import to_yaml
from fastmagn.runs.paths import TRIAL_LOG, last_checkpoint
from fastmagn.sweeping.trial import Outcome, error_line, run_trial
from tests.helpers.processes import run
from tests.helpers.small_runs import config_for, state

SMALL = [
    *("--method", "standard", "--train.batch_size", "32", "--train.epochs", "2", "--device", "cpu"),
    *("--train.amp", "float32", "--eval.num_images", "4", "--eval.corruption_set", "c15"),
]


def make_folder(run_dir: Path, *arguments: str) -> Path:
    config = config_for(SMALL, run_dir, *arguments)
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(to_yaml(config))
    return run_dir


@pytest.mark.process
def test_a_trial_asked_to_stop_saves_and_is_interrupted(tmp_path):
    run_dir = make_folder(tmp_path / "run", "--train.checkpoint_every_steps", "1", "--train.epochs", "2000")
    outcome = run_trial(run_dir, tmp_path, 1, lambda: last_checkpoint(run_dir).exists())
    assert outcome == Outcome("run", "interrupted")
    assert "resumes from the last checkpoint" in (run_dir / TRIAL_LOG).read_text()
    assert state(run_dir)["progress"]["epoch"] < 2000


def test_a_trial_that_comes_after_the_request_to_stop_does_not_start(tmp_path):
    outcome = run_trial(make_folder(tmp_path / "run"), tmp_path, 1, lambda: True)
    assert outcome == Outcome("run", "interrupted")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


@pytest.mark.slow
@pytest.mark.process
def test_a_trial_whose_log_cannot_be_written_ends_as_it_would(tmp_path):
    run_dir = make_folder(tmp_path / "run")
    (run_dir / TRIAL_LOG).symlink_to("/dev/full")
    assert run_trial(run_dir, tmp_path, 1, lambda: False) == Outcome("run", "finished")
    (run_dir / TRIAL_LOG).unlink()
    (run_dir / TRIAL_LOG).mkdir()  # cannot be opened
    assert run_trial(run_dir, tmp_path, 1, lambda: False) == Outcome("run", "finished")


@pytest.mark.slow
@pytest.mark.process
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
    path = tmp_path / TRIAL_LOG
    path.write_text("error: of an earlier attempt\n" + log)
    assert error_line(path, len("error: of an earlier attempt\n"), status) == expected


@pytest.mark.process
def test_a_trial_whose_parent_is_gone_leaves_at_once(tmp_path):
    done = run(["fastmagn.sweeping.trial", "1", "--config", "absent.yaml"], tmp_path, expect=143)
    assert "absent" not in done.stderr


@pytest.mark.process
def test_a_trial_runs_the_code_that_the_sweeps_command_line_names(tmp_path):
    (tmp_path / "mine.py").write_text("raise KeyError('ran')\n")
    run_dir = make_folder(tmp_path / "run")
    outcome = run_trial(run_dir, tmp_path, 1, lambda: False, Path("mine.py"))
    assert outcome == Outcome("run", "failed", "import: mine.py, line 1: KeyError: 'ran'")

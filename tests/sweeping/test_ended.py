"""The end of a sweep: its table, the trials that failed, results that are late or damaged, and the report."""

import json
import threading

import pytest

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.errors import InputError
from fastmagn.reporting import document
from fastmagn.runs.paths import RESULTS, last_checkpoint
from fastmagn.sweeping import sweep
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.shown import Board
from fastmagn.sweeping.sweep import finish_sweep, run_unfinished
from fastmagn.sweeping.trial import Outcome
from tests.helpers.report_folders import write_run

GOOD, BAD = "seed-0", "seed-1"


@pytest.fixture
def trials(tmp_path) -> list[Trial]:
    """Two trials, the first of which has results."""
    write_run(tmp_path / GOOD, 0.75, clean=0.9)
    (tmp_path / BAD).mkdir()
    return [Trial(name, {"train.seed": name[-1]}, Config(run_dir=tmp_path / name)) for name in (GOOD, BAD)]


def board_of(trials: list[Trial], **states: str) -> Board:
    board = Board(trials, set())
    for name, state in states.items():
        name = name.replace("_", "-")
        board.started(name)
        board.ended(Outcome(name, state, "optim.lr: too high" if state == "failed" else ""))
    return board


def change_results(trial: Trial, **changed: object) -> None:
    file = trial.config.run_folder / RESULTS
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.mark.parametrize(("bad", "status"), [("failed", 1), ("waiting", 0)])
def test_results_that_no_report_takes_do_not_hide_the_table_and_the_failed(bad, status, trials, tmp_path, capsys):
    change_results(trials[0], corruption_accuracy={"fog": [None] * 5})  # the logits were not finite
    board = board_of(trials, seed_0="finished", **({"seed_1": bad} if bad == "failed" else {}))
    assert finish_sweep(trials, board, tmp_path, 0) == status
    shown = capsys.readouterr().out
    assert "90.00" in shown.split("trials by mCA")[1]
    assert (f"failed: {BAD}: optim.lr: too high (full output: " in shown) == (bad == "failed")
    assert "warning: no report: " in shown
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("bad", ["failed", "waiting"])
def test_a_report_that_cannot_be_written_is_an_error_unless_a_trial_failed(bad, trials, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document, "write_text", full)
    board = board_of(trials, seed_0="finished", **({"seed_1": bad} if bad == "failed" else {}))
    if bad == "failed":
        assert finish_sweep(trials, board, tmp_path, 0) == 1
        assert "warning: no report: out: " in capsys.readouterr().out
    else:
        with pytest.raises(InputError, match=r"report cannot be written \(No space left on device\)"):
            finish_sweep(trials, board, tmp_path, 0)
        assert "90.00" in capsys.readouterr().out.split("trials by mCA")[1]


def test_a_trial_that_fails_before_it_starts_is_named(trials, tmp_path, capsys):
    """As on a host of a cluster that has no fastmagn: its worker ends before the trial begins."""
    board = board_of(trials, seed_0="finished")
    board.ended(Outcome(BAD, "failed", "No module named 'fastmagn'"))
    assert finish_sweep(trials, board, tmp_path, 0) == 1
    shown = capsys.readouterr().out
    assert f"[2/2] {BAD}: failed: No module named 'fastmagn' (0 s)" in shown
    assert f"failed: {BAD}: No module named 'fastmagn' (full output: " in shown


def test_a_trial_that_is_ended_from_outside_leaves_the_sweep_undone(trials, tmp_path, capsys):
    board = board_of(trials, seed_0="finished", seed_1="interrupted")
    assert finish_sweep(trials, board, tmp_path, 0) == 1
    assert f"interrupted: {BAD}: ended from outside; the same command resumes it" in capsys.readouterr().out
    assert (tmp_path / "report" / "report.md").exists()


def test_a_report_ends_a_sweep(trials, tmp_path):
    assert finish_sweep(trials, board_of(trials, seed_0="finished"), tmp_path, 0) == 0
    assert (tmp_path / "report" / "report.md").exists()


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"clean_accuracy": "x", "mca": 3}'])
def test_results_that_cannot_be_read_end_neither_the_line_nor_the_sweep(text, trials, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "_PATIENCE_S", 0.3)
    file = trials[1].config.run_folder / RESULTS
    if text is not None:
        file.write_text(text)
    board = board_of(trials, seed_0="finished", seed_1="finished")
    assert f"[2/2] {BAD}: finished (" in capsys.readouterr().out
    assert finish_sweep(trials, board, tmp_path, 0) == 0
    shown = capsys.readouterr().out
    assert shown.count("warning: ") == 1
    assert f"warning: {file}: {'no such file' if text is None else 'is damaged'}" in shown
    assert "left out" in shown
    assert (tmp_path / "report" / "report.md").exists()


def test_results_that_are_visible_late_are_reported(trials, tmp_path, capsys):
    """As on a shared file system, whose names are cached for seconds."""
    file = trials[0].config.run_folder / RESULTS
    hidden = file.rename(file.with_name("hidden"))
    board = board_of(trials, seed_0="finished")
    timer = threading.Timer(0.5, lambda: hidden.rename(file))
    timer.start()
    assert finish_sweep(trials, board, tmp_path, 0) == 0
    timer.join()
    shown = capsys.readouterr().out
    assert "left out" not in shown
    assert "90.00" in shown.split("trials by mCA")[1]


@pytest.mark.parametrize(
    ("recorded", "given", "has_checkpoint", "expected"),
    [
        ("bf16", "auto", True, "bf16"),
        ("bf16", "float32", True, "float32"),  # the run itself refuses it
        ("bf16", "auto", False, "auto"),
        ("auto", "auto", True, "auto"),
        ("{half: [really]}", "auto", True, "auto"),
        (None, "auto", True, "auto"),
    ],
)
def test_a_trial_that_is_resumed_keeps_its_precision(recorded, given, has_checkpoint, expected, tmp_path, monkeypatch):
    """Where auto means another one on this host."""
    monkeypatch.setattr(sweep, "run_trials", lambda *_: 0)
    if recorded is not None:
        (tmp_path / "config.yaml").write_text(f"train:\n  amp: {recorded}\n")
    if has_checkpoint:
        last_checkpoint(tmp_path).parent.mkdir()
        last_checkpoint(tmp_path).touch()
    config = parse_config(["--run_dir", str(tmp_path), "--train.amp", given], "test", "A test.")
    run_unfinished(Board([Trial("trial", {}, config)], set()), None)
    assert f"  amp: {expected}\n" in (tmp_path / "config.yaml").read_text()

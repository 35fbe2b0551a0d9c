"""The runs of a comparison: which may be compared, and what becomes of those that end otherwise or cannot be shown."""

import json
import threading
import time
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import equal_time, records, time_to_mca
from benchmarks.equal_time import run_all
from benchmarks.equal_time_extend import check_measured_alike
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.errors import InputError
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.trial import Outcome

TWO = ["--run", "one", "--method standard", "--run", "other", "--method augmix"]


def trials(folder: Path, number: int) -> list[Trial]:
    return [Trial(f"run{i}, seed 0", {}, Config(run_dir=folder / f"run{i}")) for i in range(number)]


def stub_trials(monkeypatch, outcome, seconds: float = 0.0) -> list[str]:
    """Trials that last so long and end as `outcome(name)` says; the names of those that have begun."""
    begun: list[str] = []

    def run_trial(run_dir, folder, threads, should_stop, imports) -> Outcome:
        begun.append(run_dir.name)
        time.sleep(seconds)
        return outcome(run_dir.name)

    monkeypatch.setattr(equal_time, "run_trial", run_trial)
    return begun


def test_a_seed_given_twice_would_count_as_two_runs(tmp_path):
    message = r"^seeds: got \[0, 1, 0\]; expected each seed once\.$"
    with pytest.raises(InputError, match=message):
        equal_time.main(["--out", str(tmp_path), "--budget_s", "9", "--seeds", "0", "1", "0", *TWO])
    with pytest.raises(InputError, match=message):
        time_to_mca.main(["--runs_dir", str(tmp_path), "--seeds", "0", "1", "0", *TWO])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("--eval.corruption_set c15", "run odd: eval.corruption_set: got 'c15'; expected that of run one, c19."),
        ("--eval.num_images 100", "run odd: eval.num_images: got 100; expected that of run one, 0."),
        ("--data.name cifar10", "run odd: data.name: got 'cifar10'; expected that of run one, digits."),
    ],
)
def test_recipes_that_are_measured_in_two_ways_are_not_compared(fields, message, tmp_path):
    with pytest.raises(InputError) as error:
        equal_time.main(["--out", str(tmp_path), "--budget_s", "9", *TWO, "--run", "odd", fields])
    assert str(error.value) == message


@pytest.mark.parametrize(
    "fields",
    [
        {"train.ema_decay": 0.99, "eval.weights": "ema"},
        {"method": "rse", "eval.rse_draws": 5},
        {"eval.test_time_flip": True},
        {"eval.batch_size": 100},
        {"eval.save_logits": True},
    ],
)
def test_what_is_a_recipes_own_or_changes_no_number_may_differ(fields):
    words = [word for name, value in fields.items() for word in (f"--{name}", str(value).lower())]
    recipes = {"one": Config(), "other": parse_config(words, "test", "")}
    check_measured_alike(recipes)
    check_measured_alike(dict(reversed(recipes.items())))


def test_a_run_that_is_ended_from_outside_is_named_and_the_comparison_is_not_done(tmp_path, monkeypatch, capsys):
    """Of earlyoom, or of a drained host: the comparison itself got no signal."""
    states = {
        "run0": Outcome("run0", "finished"),
        "run1": Outcome("run1", "interrupted"),
        "run2": Outcome("run2", "failed", "why"),
    }
    stub_trials(monkeypatch, states.get)
    left = run_all(trials(tmp_path, 3), Namespace(jobs=1), lambda: None)
    assert [(outcome.name, outcome.state) for outcome in left] == [
        ("run1, seed 0", "interrupted"),
        ("run2, seed 0", "failed"),
    ]
    equal_time.report_failed(left)
    shown = capsys.readouterr().out
    assert "interrupted: run1, seed 0: ended from outside; the same command resumes it" in shown
    assert "failed: run2, seed 0: why" in shown


def test_a_table_that_cannot_be_written_once_stops_no_run(tmp_path, monkeypatch, capsys):
    begun = stub_trials(monkeypatch, lambda name: Outcome(name, "finished"))
    written: list[int] = []

    def write() -> None:
        written.append(len(written))
        if written == [0]:
            raise OSError(28, "No space left on device")

    assert run_all(trials(tmp_path, 3), Namespace(jobs=1), write) == []
    assert begun == ["run0", "run1", "run2"]
    assert written == [0, 1, 2]
    assert "No space left on device; this is written again after the next run." in capsys.readouterr().out


def test_a_run_that_cannot_begin_ends_the_comparison_at_once(tmp_path, monkeypatch):
    """Its configuration cannot be written; the run beside it saves and ends."""
    stopped, real_write = threading.Event(), equal_time.write_text

    def write_text(path: Path, text: str) -> None:
        if path.parent.name == "run1":
            raise OSError(28, "No space left on device")
        real_write(path, text)

    def run_trial(run_dir, folder, threads, should_stop, imports) -> Outcome:
        while not should_stop():
            time.sleep(0.01)
        stopped.set()
        return Outcome(run_dir.name, "interrupted")

    monkeypatch.setattr(equal_time, "write_text", write_text)
    monkeypatch.setattr(equal_time, "run_trial", run_trial)
    with pytest.raises(OSError, match="No space left"):
        run_all(trials(tmp_path, 6), Namespace(jobs=2), lambda: None)
    assert stopped.is_set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run0"]


@pytest.mark.parametrize("lack", ["seed", "recipe"])
def test_a_table_without_a_run_that_has_finished_since_is_not_kept(lack, tmp_path, monkeypatch):
    """As after a kill between a run's results and the table."""
    source = next(iter(sorted(records.RECORDS.glob("*-twenty-three-recipes"))))
    table = json.loads((source / "equal_time.json").read_text())
    seeds, names = table["settings"]["seeds"], list(table["recipes"])
    for name in names:
        for seed in seeds:
            run = tmp_path / "out" / name / f"seed{seed}"
            run.mkdir(parents=True)
            for file in records.RUN_FILES:
                (run / file).write_text((source / name / f"seed{seed}" / file).read_text())
    if lack == "recipe":
        del table["recipes"][names[2]]
    else:
        table["recipes"][names[2]]["seeds"].pop()
    (tmp_path / "out" / "equal_time.json").write_text(json.dumps(table))
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    there = [] if lack == "recipe" else seeds[:-1]
    with pytest.raises(InputError) as error:
        records.main(["2026-01-31-cut", "--add", str(tmp_path / "out")])
    assert f"equal_time.json: has seeds {there} of {names[2]}; expected {seeds}. The command" in str(error.value)
    assert not (tmp_path / "kept").exists()

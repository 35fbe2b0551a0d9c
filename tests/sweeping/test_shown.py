"""What a sweep shows: the table of trials that run, a line for each that ends, the summary by mCA."""

import json
from typing import Any

import pytest
from rich.console import Console

from fastmagn.corruptions.sets import CIFAR_CBAR
from fastmagn.sweeping import shown
from fastmagn.sweeping.arguments import parse_arguments
from fastmagn.sweeping.definition import Trial, make_trials
from fastmagn.sweeping.shown import Board, print_summary, summarise_trials
from fastmagn.sweeping.trial import Outcome


@pytest.fixture
def trials(tmp_path) -> list[Trial]:
    request = parse_arguments(["--grid", "train.seed=0,1,2", "--train.epochs", "4", "--out", str(tmp_path)])
    return make_trials(request.arguments, request.search, tmp_path)[1]


@pytest.fixture
def terminal(monkeypatch) -> Console:
    console = Console(width=120, record=True, force_terminal=True, color_system=None, markup=False)
    monkeypatch.setattr(shown, "console", console)
    return console


def finish(
    trial: Trial, c18: float | None, accuracies: dict[str, list[float]], rms_set: str = "c18", **more: float
) -> None:
    """Results with the parts that a summary reads; `more` are means of further sets."""
    results: dict[str, Any] = {
        "clean_accuracy": 0.9,
        "mca": {"c15": None, "c18": c18, "c19": None, **more},
        "corruption_accuracy": accuracies,
        "rms_calibration_error": {"corrupt": 0.05, "corruption_set": rms_set},
    }
    trial.config.run_dir.mkdir(parents=True, exist_ok=True)
    (trial.config.run_dir / "results.json").write_text(json.dumps(results))


def test_the_live_table_says_where_each_trial_stands(trials, terminal):
    board = Board(trials, finished={"seed-2"})
    board.started("seed-0")
    run_dir = trials[0].config.run_dir
    run_dir.mkdir(parents=True)
    row = json.dumps({"epoch": 1, "loss": 1.25, "train_accuracy": 0.5})
    (run_dir / "metrics.jsonl").write_text(row + "\n" + row[:9])  # a row is being written
    terminal.print(board.table())
    lines = terminal.export_text().splitlines()
    assert "1 of 3 trials finished" in lines[0]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert cells[0][:5] == ["seed-0", "running", "2/4", "1.250", "50.0"]
    assert cells[1][:2] == ["seed-2", "finished"]
    assert cells[2][:2] == ["seed-1", "waiting"]


def test_a_trial_that_ends_is_one_line(trials, terminal):
    board = Board(trials, finished=set())
    for name in ("seed-0", "seed-1"):
        board.started(name)
    finish(trials[0], 0.75, {"fog": [0.75] * 5})
    board.ended(Outcome("seed-0", "finished"))
    board.ended(Outcome("seed-1", "failed", "optim.lr: too [high]"))
    board.ended(Outcome("seed-2", "interrupted"))  # asked to stop before it began
    first, second = terminal.export_text().splitlines()
    assert first.startswith("[1/3] seed-0: clean accuracy 90.00 %, mCA c18 75.00 % (")
    assert second.startswith("[2/3] seed-1: failed: optim.lr: too [high] (")


def test_a_terminal_gets_the_table_and_a_pipe_does_not(trials, terminal, monkeypatch):
    with Board(trials, set()).live_table():
        pass
    assert "0 of 3 trials finished" in terminal.export_text()
    pipe = Console(width=120, record=True, force_terminal=False, markup=False)
    monkeypatch.setattr(shown, "console", pipe)
    with Board(trials, set()).live_table():
        pass
    assert pipe.export_text() == ""


def test_the_summary_is_sorted_by_the_set_that_all_have_measured(trials, terminal):
    for trial, mca in zip(trials, (0.5, 0.7, 0.6), strict=True):
        finish(trial, mca, {"fog": [mca] * 5})
    print_summary(trials)
    text = terminal.export_text()
    assert "trials by mCA c18" in text
    assert text.index("70.00") < text.index("60.00") < text.index("50.00")


def test_trials_that_measured_cbar_alone_are_sorted_by_it(trials, terminal):
    for number, trial in enumerate(trials):
        finish(trial, None, {name: [0.5 + 0.1 * number] * 5 for name in CIFAR_CBAR}, cbar=0.5 + 0.1 * number)
    print_summary(trials)
    board = Board(trials, finished=set())
    board.started("seed-2")
    board.ended(Outcome("seed-2", "finished"))
    text = terminal.export_text()
    assert "trials by mCA cbar" in text
    assert "clean accuracy 90.00 %, mCA cbar 70.00 %" in text


def test_calibration_errors_of_different_corruptions_stand_in_columns_of_their_own(trials, terminal):
    for trial, rms_set in zip(trials, ("c18", "c18", "c15+cbar"), strict=True):
        finish(trial, 0.5, {"fog": [0.5] * 5}, rms_set)
    print_summary(trials)
    text = terminal.export_text()
    columns = [cell.strip() for cell in text.splitlines()[2].split("┃")]
    cells = [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if line.startswith("│")]
    assert columns[-3:-1] == ["RMS c18", "RMS c15+cbar"]
    assert [row[-3:-1] for row in cells] == [["5.00", ""], ["5.00", ""], ["", "5.00"]]


def test_without_a_whole_set_the_corruptions_that_all_share_decide(trials):
    finish(trials[0], None, {"fog": [0.5] * 5, "snow": [1.0] * 5})
    finish(trials[1], 0.9, {"fog": [0.6] * 5})
    title, summaries = summarise_trials(trials[:2])
    assert title == "of 1 corruption"
    assert [(summary.trial.name, summary.mca) for summary in summaries] == [
        ("seed-1", pytest.approx(0.6)),
        ("seed-0", pytest.approx(0.5)),
    ]


def test_trials_of_some_severities_are_sorted_by_their_mean(trials, terminal):
    for trial, (first, fifth) in zip(trials, ((0.9, 0.1), (0.8, 0.6), (0.5, 0.7)), strict=True):
        finish(trial, None, {"fog": [first, None, None, None, fifth]}, measured=(first + fifth) / 2)
        file = trial.config.run_dir / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"severities": {"fog": [1, 5]}}))
    board = Board(trials, finished=set())
    board.started("seed-1")
    board.ended(Outcome("seed-1", "finished"))
    assert "mCA measured (fog at severities 1 and 5) 70.00 %" in terminal.export_text()
    title, summaries = summarise_trials(trials)
    assert title == "of 1 corruption at severities 1 and 5"
    assert [(summary.trial.name, summary.mca) for summary in summaries] == [
        *(("seed-1", pytest.approx(0.7)), ("seed-2", pytest.approx(0.6)), ("seed-0", pytest.approx(0.5)))
    ]
    finish(trials[0], None, {"fog": [0.9] * 5})  # five severities are not compared with two
    title, summaries = summarise_trials(trials)
    assert title == "of 0 corruptions"
    assert [summary.mca for summary in summaries] == [None, None, None]


def test_accuracies_that_were_not_finite_are_dashes(trials, terminal):
    """The mCA is over the corruptions that have a number in every trial; without one, there is none."""
    finish(trials[0], None, {"fog": [0.75] * 5, "snow": [0.25] * 5})
    finish(trials[1], None, {"fog": [0.75, None, 0.75, 0.75, 0.75], "snow": [0.5] * 5})
    title, summaries = summarise_trials(trials[:2])
    assert title == "of 1 corruption"
    assert [summary.mca for summary in summaries] == [0.5, 0.25]
    finish(trials[1], None, {"fog": [None] * 5, "snow": [None] * 5})
    print_summary(trials[:2])
    assert terminal.export_text().count(" - ") == 2
    file = trials[2].config.run_dir / "results.json"
    finish(trials[2], None, {"fog": [None] * 5})
    file.write_text(json.dumps(json.loads(file.read_text()) | {"clean_accuracy": None}))
    board = Board(trials, finished=set())
    board.started("seed-2")
    board.ended(Outcome("seed-2", "finished"))
    assert "seed-2: clean accuracy - % (" in terminal.export_text()

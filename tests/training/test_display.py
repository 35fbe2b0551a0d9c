"""What a run shows while it trains: a table with a row per epoch; at a terminal, also a bar and a live row."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fastmagn.training.display as display
from fastmagn.errors import counted
from fastmagn.runs.progress import Progress
from fastmagn.training.display import EpochTable, epoch_lines, row_so_far
from fastmagn.training.run import _length
from tests.helpers.commands import call
from tests.helpers.processes import command_environment

STEPS_PER_EPOCH = 1198 // 128
COMMAND = [
    *("fastmagn.train", "--device", "cpu", "--train.batch_size", "128", "--train.epochs", "2"),
    *("--method", "magn", "--eval.num_images", "4", "--eval.corruption_set", "c15", "--run_dir", "run"),
]
HEADER = "epoch     loss       CE    cons.  train %  images/s  seconds"
ROW = {"epoch": 0, "step": 9, "lr": 0.1, "loss": 2.25, "cross_entropy": 2.125, "jensen_shannon": 0.0625}
ROW |= {"consistency": 0.5, "train_accuracy": 0.5, "validation_accuracy": 1.0, "images_per_s": 1234.4, "epoch_s": 61.25}
ROW |= {"wall_images_per_s": 1.0, "wall_s": 2.0}


def at_a_terminal(command: list[str], folder: Path, columns: int) -> str:
    """What a terminal gets from a command, escape sequences removed."""
    ours, theirs = pty.openpty()
    environment = command_environment(TERM="xterm", COLUMNS=str(columns), LINES="40")
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:  # Linux: the other end is closed
        pass
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    assert process.wait() == 0, text
    return text


@pytest.mark.process
def test_a_pipe_gets_a_row_an_epoch_and_a_terminal_one_display_for_the_whole_run(tmp_path, monkeypatch, capsys):
    """The first epoch into a pipe; the second, gone on with, at a terminal of 80 columns."""
    first = [*COMMAND, "--train.max_steps", str(STEPS_PER_EPOCH)]
    monkeypatch.chdir(tmp_path)
    piped = call(first, capsys)
    lines = piped.stdout.splitlines()
    assert lines[lines.index(HEADER) + 1].startswith("  1/1  ")
    assert sum(re.match(r" *\d+/\d+  ", line) is not None for line in lines) == 1
    assert f"{STEPS_PER_EPOCH} steps (train.max_steps), {STEPS_PER_EPOCH} per epoch" in lines
    assert not any(sign in piped.stdout for sign in ("\x1b", "\r", "steps ━", " left"))
    assert all(len(line) <= 80 for line in lines), lines

    shown = at_a_terminal([sys.executable, "-m", *COMMAND], tmp_path, columns=80)
    assert "Warning" not in shown + piped.stdout + piped.stderr
    assert f"2 epochs of {STEPS_PER_EPOCH} steps" in shown
    assert f"resumed at epoch 2, after {STEPS_PER_EPOCH} steps" in shown
    assert re.search(rf"steps ━+.* 1\d/{2 * STEPS_PER_EPOCH} .*left", shown)
    drawn = [line for part in shown.split("\n") for line in part.split("\r")]
    assert max(map(len, drawn)) <= 80, max(drawn, key=len)
    assert any(re.fullmatch(r"  2/2( +\d+\.\d{4}){3} +\d+\.\d\d +\d+ +\d+\.\d", line) for line in drawn), (
        "the row stays"
    )


def test_a_row_has_the_numbers_below_their_names_in_80_columns():
    header, row = epoch_lines(ROW, 150, 80)
    names = ["epoch", "loss", "CE", "JSD", "cons.", "train %", "valid %", "images/s", "seconds"]
    values = ["1/150", "2.2500", "2.1250", "0.0625", "0.5000", "50.00", "100.00", "1234", "61.2"]
    assert re.split(r"  +", header.strip()) == names
    assert re.split(r"  +", row.strip()) == values
    assert len(header) == len(row) == 80
    for name, value in zip(names, values, strict=True):  # right-aligned
        assert re.search(rf"{re.escape(name)}(  |$)", header).start(1) == re.search(rf"{value}(  |$)", row).start(1)
    assert epoch_lines(ROW, 150, 120) == (header, row)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("size", [1e-9, 12.5, 123.456, 98765.4321, 1e12])
def test_large_numbers_and_many_parts_stay_in_their_columns(width, size):
    parts = {f"part_number_{i}_of_many": size for i in range(5)}
    row = {"epoch": 998, "loss": size, **parts, "train_accuracy": 1.0, "images_per_s": size, "epoch_s": size}
    header, line = epoch_lines(row, 1000, width)
    assert len(header) == len(line) <= width
    assert line.startswith(" 999/1000  ")
    numbers = line.split()[1:]
    assert float(numbers[0]) == pytest.approx(size, rel=0.05, abs=1e-4)
    assert len(numbers) == len(re.split(r"  +", header.strip())) - 1
    assert len(numbers) == {60: 5, 80: 7, 120: 9}[width]  # loss, accuracy, two speeds, and the parts that fit


def test_the_header_comes_first_and_again_when_the_columns_change(monkeypatch):
    printed = []
    monkeypatch.setattr(display.console, "print", lambda text, soft_wrap: printed.append(text))
    table = EpochTable(3)
    plain = {name: value for name, value in ROW.items() if name not in ("jensen_shannon", "consistency")}
    for epoch, row in enumerate((plain, plain, ROW)):
        table.print_row(row | {"epoch": epoch})
    assert [len(text.splitlines()) for text in printed] == [2, 1, 2]
    assert "JSD" in printed[2]
    assert "JSD" not in printed[0]


def test_the_live_row_is_the_mean_over_the_epochs_steps():
    progress = Progress(
        step_in_epoch=4,
        names=("loss", "cross_entropy", "train_accuracy"),
        sums=torch.tensor([10.0, 6.0, 3.0], dtype=torch.float64),
        epoch_s=2.0,
    )
    row = row_so_far(progress, batch_size=100)
    assert row == {
        **{"epoch": 0, "loss": 2.5, "cross_entropy": 1.5, "train_accuracy": 0.75},
        **{"images_per_s": 200, "epoch_s": 2},
    }


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        *((1, "epoch", "1 epoch"), (2, "epoch", "2 epochs"), (0, "view", "0 views"), (1, "class", "1 class")),
        *((3, "class", "3 classes"), (2, "severity", "2 severities"), (2, "test image", "2 test images")),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(number, noun, text):
    assert counted(number, noun) == text


def test_thousands_are_separated_where_asked():
    assert counted(1198, "image", ",") == "1,198 images"


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (119, "2 epochs of 1 step; 55 of 119 images, others in each epoch, fill no batch"),
        (85, "2 epochs of 1 step"),
        (128, "2 epochs of 2 steps"),
        (1000, "2 epochs of 15 steps"),
    ],
)
def test_many_images_that_fill_no_batch_are_counted(images, said):
    train = SimpleNamespace(epochs=2, batch_size=64)
    source = SimpleNamespace(num_images=images, steps_per_epoch=images // 64)
    run = SimpleNamespace(config=SimpleNamespace(train=train), source=source, last_step=2 * source.steps_per_epoch)
    assert _length(run) == said

"""What a run shows while it trains: one live display at a terminal, a line an epoch elsewhere."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastmagn.runs.progress import Progress
from fastmagn.training.display import describe
from tests.helpers.commands import call
from tests.helpers.processes import command_environment

STEPS_PER_EPOCH = 1198 // 128
COMMAND = [
    *("fastmagn.train", "--device", "cpu", "--train.batch_size", "128", "--train.epochs", "2"),
    *("--method", "magn", "--eval.num_images", "4", "--eval.corruption_set", "c15", "--run_dir", "run"),
]


def at_a_terminal(command: list[str], folder: Path) -> str:
    """What a terminal gets from a command, escape sequences removed."""
    ours, theirs = pty.openpty()
    environment = command_environment(TERM="xterm", COLUMNS="160", LINES="40")
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
def test_a_pipe_gets_a_line_an_epoch_and_a_terminal_one_display_for_the_whole_run(tmp_path, monkeypatch, capsys):
    """The first epoch into a pipe; the second, gone on with, at a terminal."""
    first = [*COMMAND, "--train.max_steps", str(STEPS_PER_EPOCH)]
    monkeypatch.chdir(tmp_path)
    piped = call(first, capsys).stdout
    assert len([line for line in piped.splitlines() if line.startswith("epoch ")]) == 1
    assert not any(sign in piped for sign in ("\x1b", "\r", ", steps", " left"))

    shown = at_a_terminal([sys.executable, "-m", *COMMAND], tmp_path)
    assert "epoch 1/2, steps" not in shown
    assert re.search(rf"epoch 2/2, steps .* 1\d/{2 * STEPS_PER_EPOCH} .*left", shown)
    status = r"\d+ images/s  loss \d\.\d{4}  cross_entropy \d\.\d{4}  consistency \d\.\d{4}"
    assert re.search(status + r"  train \d+\.\d%", shown)
    assert re.search(r"epoch   2/2  loss", shown), "the log's line stays"


def test_the_status_line_is_the_mean_over_the_epochs_steps():
    progress = Progress(
        step_in_epoch=4,
        names=("loss", "cross_entropy", "train_accuracy"),
        sums=torch.tensor([10.0, 6.0, 3.0], dtype=torch.float64),
        epoch_s=2.0,
    )
    assert describe(progress, batch_size=100) == "200 images/s  loss 2.5000  cross_entropy 1.5000  train 75.0%"

"""python -m benchmarks.start: measure the time and the memory that imports, answers and the first step need.

    python -m benchmarks.start [--turns 3] [--checkout DIR] [--out FILE.json]

Each call is a new process, in turn for all of them: imports, `--help` of every command, and the embedded default up to
its first step, and with its evaluation of 8 images. These are measured warm, and cold: with no compiled kernel, in a
folder that is fresh for each. A call's seconds of CPU are its user and system time, and that of the processes that it
starts; the memory is the peak resident size of the largest of them. The files are in the disk cache, since a first turn
is not counted; it has no cold calls.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table

from benchmarks.measure import console, spread, write_result
from fastmagn.config.command_line import OwnOptions
from fastmagn.errors import check
from fastmagn.machine.command import run_command
from fastmagn.machine.environment import commit_of, found

COMMANDS = ("train", "evaluate", "corrupt", "report", "sweep", "export", "theory", "warm_up")
ANSWERS = {
    **{f"import {name}": ["-c", f"import {name}"] for name in ("torch", "fastmagn", "fastmagn.train")},
    "what a training imports": ["-c", "import fastmagn.training.run"],
    **{f"fastmagn {option}": ["-m", "fastmagn", option] for option in ("--help", "--version")},
}
_UP_TO_A_STEP = """
import os, sys
from fastmagn.config.command_line import parse_config
from fastmagn.train import train
from fastmagn.training.callbacks import Callbacks
train(parse_config(sys.argv[1:], "start", ""), Callbacks(on_step=lambda *_: os._exit(0)))
"""
_SHORT = ["--train.max_steps", "1", "--eval.num_images", "8", "--device", "cpu"]
RUNS = {"first step": ["-c", _UP_TO_A_STEP, *_SHORT], "a step and its evaluation": ["-m", "fastmagn.train", *_SHORT]}

# A small process starts the command: a process begins with the peak memory of the one that started it.
_STARTER = """
import json, os, sys
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
command = [sys.executable, *sys.argv[1:]]
_, status, usage = os.wait4(os.posix_spawn(command[0], command, os.environ, file_actions=silent), 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


class Start(NamedTuple):
    """One call: seconds by the wall clock, seconds of CPU, peak memory in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if requested."""
    parser = OwnOptions("python -m benchmarks.start", __doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3, help="counted calls of each kind (default: 3)")
    parser.add_argument(
        "--checkout", type=Path, help="measure the commands of another checkout, such as an older commit"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    check(options.turns >= 1, "turns", options.turns, "1 or more")
    turns = [measure_turn(options.checkout, is_counted=turn > 0) for turn in range(1 + options.turns)][1:]
    measured = {
        kind: {
            name: {field: spread([getattr(turn[kind][name], field) for turn in turns]) for field in Start._fields}
            for name in turns[0][kind]
        }
        for kind in turns[0]
    }
    print_table(measured)
    if options.out:
        settings = {"turns": options.turns, "checkout": str(options.checkout) if options.checkout else None}
        settings |= {"checkout_commit": found(commit_of, options.checkout)} if options.checkout else {}
        write_result(options.out, "start", settings, measured, torch.device("cpu"))
    return 0


def measure_turn(checkout: Path | None, is_counted: bool) -> dict[str, dict[str, Start]]:
    """One call of each kind; the cold ones only if the turn is counted.

    Returns:
        By their names, the calls under `answers` (imports and options), `help` (of each command), `warm` and `cold`.
    """
    helps = {name: ["-m", f"fastmagn.{name}", "--help"] for name in COMMANDS if is_there(name, checkout)}
    calls = {"answers": ANSWERS, "help": helps, "warm": RUNS, **({"cold": RUNS} if is_counted else {})}
    return {
        kind: {name: start(words, checkout, is_cold=kind == "cold") for name, words in of_kind.items()}
        for kind, of_kind in calls.items()
    }


def is_there(name: str, checkout: Path | None) -> bool:
    """Whether a checkout has this command; an older one has fewer."""
    folder = (checkout or Path(__file__).parent.parent) / "fastmagn"
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def start(words: list[str], checkout: Path | None = None, *, is_cold: bool = False) -> Start:
    """Run Python on these words in a new process: from `checkout`, or with the packages that this process has.

    A run's folder is a temporary one; so is that of compiled kernels if `is_cold`.
    """
    environment = dict(os.environ)
    if checkout is not None:
        environment["PYTHONPATH"] = os.pathsep.join(str(checkout.absolute() / name) for name in (".", "kernels"))
    with tempfile.TemporaryDirectory() as folder:
        if is_cold:
            environment["NUMBA_CACHE_DIR"] = f"{folder}/kernels"
        run_dir = ["--run_dir", f"{folder}/run"] if words in RUNS.values() else []
        command = [sys.executable, "-I", "-S", "-c", _STARTER, *words, *run_dir]
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True)
        wall_s = time.perf_counter() - begin
    status, cpu_s, peak_mib = json.loads(done.stdout)
    check(status == 0, " ".join(["python", *words]), status, "exit status 0")
    return Start(wall_s, cpu_s, peak_mib)


def print_table(measured: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    """Print the medians, with the lowest and the highest CPU time."""
    table = Table(title="Imports, answers and first steps")
    for column in ("process", "CPU, s", "lowest", "highest", "wall, s", "peak, MiB"):
        table.add_column(column, justify="left" if column == "process" else "right")
    shown = {"answers": "{}", "help": "{} --help", "warm": "{}, warm", "cold": "{}, cold"}
    for kind, of_kind in measured.items():
        for name, values in of_kind.items():
            cpu = [f"{values['cpu_s'][one]:.2f}" for one in ("median", "lowest", "highest")]
            wall, peak = f"{values['wall_s']['median']:.2f}", f"{values['peak_mib']['median']:.0f}"
            table.add_row(shown[kind].format(name), *cpu, wall, peak)
    console.print(table)


if __name__ == "__main__":
    run_command(main)

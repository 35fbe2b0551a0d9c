"""python -m benchmarks.start: measure the time and the memory that each command needs to answer `--help`.

    python -m benchmarks.start [--repeats 5] [--checkout DIR] [--out FILE.json]

This is what every call of a command pays before it does anything: Python, the command's imports, its parser. Each
`--help` is a new process, in turn for all commands. The CPU seconds are its user and system time; the memory is its
peak resident size. The files are in the disk cache, since one round is not counted.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table

from benchmarks.measure import console, spread, write_result
from fastmagn.config.command_line import OwnOptions
from fastmagn.errors import check
from fastmagn.machine.command import run_command

COMMANDS = ("train", "evaluate", "corrupt", "report", "sweep", "export", "theory")

# A small process starts the command: a process begins with the peak memory of the one that started it.
_STARTER = """
import json, os, sys
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
command = [sys.executable, "-m", sys.argv[1], "--help"]
_, status, usage = os.wait4(os.posix_spawn(command[0], command, os.environ, file_actions=silent), 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""


class Start(NamedTuple):
    """One `--help`: seconds by the wall clock, seconds of CPU, peak memory in MiB."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if requested."""
    parser = OwnOptions("python -m benchmarks.start", __doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="counted calls of each command (default: 5)")
    parser.add_argument(
        "--checkout", type=Path, help="measure the commands of another checkout, such as an older commit"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    check(options.repeats >= 1, "repeats", options.repeats, "1 or more")
    rounds = [
        {name: start(f"fastmagn.{name}", options.checkout) for name in COMMANDS} for _ in range(1 + options.repeats)
    ][1:]
    measured = {
        name: {field: spread([getattr(one[name], field) for one in rounds]) for field in Start._fields}
        for name in COMMANDS
    }
    print_table(measured)
    if options.out:
        settings = {"repeats": options.repeats, "checkout": str(options.checkout) if options.checkout else None}
        write_result(options.out, "start", settings, {"help": measured}, torch.device("cpu"))
    return 0


def start(module: str, checkout: Path | None = None) -> Start:
    """Run `python -m MODULE --help` in a new process: from `checkout`, or with the packages that this process has."""
    environment = dict(os.environ)
    if checkout is not None:
        environment["PYTHONPATH"] = os.pathsep.join(str(checkout.absolute() / name) for name in (".", "kernels"))
    command = [sys.executable, "-I", "-S", "-c", _STARTER, module]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True)
    wall_s = time.perf_counter() - begin
    status, cpu_s, peak_mib = json.loads(done.stdout)
    check(status == 0, f"python -m {module} --help", status, "exit status 0")
    return Start(wall_s, cpu_s, peak_mib)


def print_table(measured: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the medians, with the lowest and the highest CPU time."""
    table = Table(title="--help of each command")
    for column in ("command", "CPU, s", "lowest", "highest", "wall, s", "peak, MiB"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for name, values in measured.items():
        cpu = [f"{values['cpu_s'][kind]:.2f}" for kind in ("median", "lowest", "highest")]
        table.add_row(name, *cpu, f"{values['wall_s']['median']:.2f}", f"{values['peak_mib']['median']:.0f}")
    console.print(table)


if __name__ == "__main__":
    run_command(main)

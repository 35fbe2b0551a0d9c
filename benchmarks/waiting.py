"""python -m benchmarks.waiting: measure training under each way in which OpenMP's threads can wait for one another.

    python -m benchmarks.waiting [--busy 0 6] [--seconds 10] [--turns 3] [--out FILE.json] [--section.field value ...]

After its part of an operation, a thread spins until the others are ready too, or sleeps. On a quiet machine spinning
saves the time to wake up; beside other processes it burns the time that the other thread needs. GNU OpenMP, which
PyTorch's packages for Linux contain, reads OMP_WAIT_POLICY and GOMP_SPINCOUNT when it is loaded, so each measurement is
a process of its own: the real training steps of `--seconds`, after three that are not counted. The settings take turns.
`--busy` are the numbers of other processes, each of which computes without end.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.table import Table

from benchmarks.measure import console, device_of_runs, spread, write_result
from benchmarks.train import endless_batches
from fastmagn.config.command_line import OwnOptions, parse_config, parse_own
from fastmagn.data import load_data, split_validation
from fastmagn.errors import InputError, check
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import set_backends, settle_hardware
from fastmagn.training.build import build_run
from fastmagn.training.step import make_pieces, train_step

SETTINGS = {
    "library's own": {},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
_NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_WARM_UP_STEPS = 3


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if requested."""
    parser = OwnOptions(
        "python -m benchmarks.waiting",
        __doc__.splitlines()[0],
        "Any field of the configuration may follow; python -m fastmagn.train --help_all lists them.",
    )
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 6], help="other processes (default: 0 6)")
    parser.add_argument("--seconds", type=float, default=10, help="length of a measurement (default: 10)")
    parser.add_argument("--turns", type=int, default=3, help="measurements of each setting (default: 3)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options, fields = parse_own(parser, arguments)
    check(options.turns >= 1, "turns", options.turns, "1 or more")
    check(min(options.busy) >= 0, "busy", options.busy, "0 or more each")
    check(options.seconds > 0, "seconds", options.seconds, "more than 0")
    measured = {}
    for busy in options.busy:
        with other_processes(busy):
            rates = [
                {name: images_per_s(setting, options.seconds, fields) for name, setting in SETTINGS.items()}
                for _ in range(options.turns)
            ]
        measured[str(busy)] = {name: spread([rate[name] for rate in rates]) for name in SETTINGS}
        print_table(busy, measured[str(busy)])
    if options.out:
        settings = {"seconds": options.seconds, "turns": options.turns, "arguments": fields}
        write_result(options.out, "waiting", settings, {"images_per_s_beside": measured}, device_of_runs(fields))
    return 0


@contextmanager
def other_processes(count: int) -> Iterator[None]:
    """`count` processes that compute without end."""
    processes = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def images_per_s(setting: dict[str, str], seconds: float, fields: list[str]) -> float:
    """The images/s of training steps in a new process with these environment variables.

    Raises:
        InputError: The process failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NAMES} | setting
    program = "import sys; from benchmarks.waiting import train_for; train_for(float(sys.argv[1]), sys.argv[2:])"
    command = [sys.executable, "-c", program, str(seconds), *fields]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"a measurement ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    rate = float(done.stdout.split()[-1])
    console.print(f"{' '.join(f'{name}={value}' for name, value in setting.items()) or 'own'}: {rate:,.0f} images/s")
    return rate


def train_for(seconds: float, fields: list[str]) -> None:
    """Train for so many seconds and print the images/s."""
    config = settle_hardware(parse_config(fields, "python -m benchmarks.waiting", ""))
    device = torch.device(config.device)
    set_backends(device, config.train.deterministic, config.train.amp)
    image_set = load_data(config.data)
    run = build_run(config, image_set, split_validation(image_set, 0, config.train.seed)[0])
    run.model.train()
    num_steps, begin = 0, 0.0
    for batch in endless_batches(run):
        if num_steps == _WARM_UP_STEPS:
            begin = time.perf_counter()
        train_step(run, make_pieces(run, batch, 0), 0)
        num_steps += 1
        elapsed = time.perf_counter() - begin
        if num_steps > _WARM_UP_STEPS and elapsed > seconds:
            break
    print((num_steps - _WARM_UP_STEPS) * config.train.batch_size / elapsed)


def print_table(busy: int, rates: dict[str, dict[str, float]]) -> None:
    """One row for each setting."""
    table = Table(title=f"training beside {busy} other process{'' if busy == 1 else 'es'}")
    for column in ("setting", "images/s", "lowest", "highest", "times the library's own"):
        table.add_column(column, justify="left" if column == "setting" else "right")
    own = rates["library's own"]["median"]
    for name, rate in rates.items():
        values = [f"{rate[kind]:,.0f}" for kind in ("median", "lowest", "highest")]
        table.add_row(name, *values, f"{rate['median'] / own:.2f}")
    console.print(table)


if __name__ == "__main__":
    run_command(main)

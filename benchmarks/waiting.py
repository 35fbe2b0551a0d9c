"""python -m benchmarks.waiting: measure training under each way in which OpenMP's threads can wait for one another.

    python -m benchmarks.waiting [--busy 0 6] [--seconds 10] [--turns 3] [--own_sessions] [--out FILE.json]
        [--section.field value ...]

After its part of an operation, a thread spins until the others are ready too, or sleeps. On a quiet machine spinning
saves the time to wake up; beside other processes it burns the time that the other thread needs. GNU OpenMP, which
PyTorch's packages for Linux contain, reads OMP_WAIT_POLICY and GOMP_SPINCOUNT when it is loaded, so each measurement is
a process of its own: the real training steps of `--seconds`, after four that are not counted. The settings take turns;
the last one has a single thread, which waits for nobody. `--busy` are the numbers of other processes, each of which
computes without end while steps are counted. They belong to the session of the training, like jobs of the same shell;
with `--own_sessions` each has its own, like the work of other users.
"""

import json
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
from fastmagn.machine.hardware import keep_memory_on_cpu, set_backends, settle_hardware
from fastmagn.training.build import build_run
from fastmagn.training.step import make_pieces, train_step

SETTINGS = {
    "library's own": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
_NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
_WARM_UP_STEPS = 4
_MEASUREMENT = """
import json, sys
from benchmarks.waiting import train_for

train_for(*json.loads(sys.argv[1]), sys.argv[2:])
"""


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
    parser.add_argument("--own_sessions", action="store_true", help="the others belong to sessions of their own")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options, fields = parse_own(parser, arguments)
    check(options.turns >= 1, "turns", options.turns, "1 or more")
    check(min(options.busy) >= 0, "busy", options.busy, "0 or more each")
    check(options.seconds > 0, "seconds", options.seconds, "more than 0")
    measured = {}
    for busy in options.busy:
        others = (options.seconds, busy, options.own_sessions)
        rates = [
            {name: images_per_s(setting, others, fields) for name, setting in SETTINGS.items()}
            for _ in range(options.turns)
        ]
        measured[str(busy)] = {name: spread([rate[name] for rate in rates]) for name in SETTINGS}
        print_table(busy, measured[str(busy)])
    if options.out:
        settings = {name: getattr(options, name) for name in ("seconds", "turns", "own_sessions")} | {
            "arguments": fields
        }
        write_result(options.out, "waiting", settings, {"images_per_s_beside": measured}, device_of_runs(fields))
    return 0


@contextmanager
def other_processes(count: int, own_sessions: bool) -> Iterator[None]:
    """`count` processes that compute without end, in this session or each in its own."""
    command = [sys.executable, "-I", "-S", "-c", "while True: pass"]
    processes = [subprocess.Popen(command, start_new_session=own_sessions) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def images_per_s(setting: dict[str, str], measured: tuple[float, int, bool], fields: list[str]) -> float:
    """The images/s of training steps in a new process with these environment variables; `measured` is for `train_for`.

    Raises:
        InputError: The process failed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _NAMES} | setting
    program = (
        "import json, sys; from benchmarks.waiting import train_for; train_for(*json.loads(sys.argv[1]), sys.argv[2:])"
    )
    command = [sys.executable, "-c", program, json.dumps(measured), *fields]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"a measurement ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    rate = float(done.stdout.split()[-1])
    console.print(f"{' '.join(f'{name}={value}' for name, value in setting.items()) or 'own'}: {rate:,.0f} images/s")
    return rate


def train_for(seconds: float, busy: int, own_sessions: bool, fields: list[str]) -> None:
    """Train for so many seconds beside `busy` other processes, and print the images/s."""
    config = settle_hardware(parse_config(fields, "python -m benchmarks.waiting", ""))
    device = torch.device(config.device)
    set_backends(device, config.train.deterministic, config.train.amp)
    keep_memory_on_cpu(config.device)
    image_set = load_data(config.data)
    run = build_run(config, image_set, split_validation(image_set, 0, config.train.seed)[0])
    run.model.train()
    batches = endless_batches(run)

    def step() -> None:
        train_step(run, make_pieces(run, next(batches), run.config.train.clean_epochs), 0)

    for _ in range(_WARM_UP_STEPS):
        step()
    with other_processes(busy, own_sessions):
        begin = time.perf_counter()
        num_steps, elapsed = 0, 0.0
        while elapsed < seconds:
            step()
            num_steps += 1
            elapsed = time.perf_counter() - begin
    print(num_steps * config.train.batch_size / elapsed)


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

"""python -m benchmarks.scaling: measure images/s of training on 1..N processes with torchrun.

    python -m benchmarks.scaling --processes 1 2 4 8 [--epochs 2] [--out FILE.json] [--section.field value ...]

For each number of processes, `torchrun --nproc_per_node N -m fastmagn.train` trains a new run of `--epochs` epochs with
the same global batch (`train.batch_size`). This is strong scaling. The images/s are those of the last epoch, so
compilation does not count. On a CPU the processes share the cores, so the result shows the cost of sharing.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.measure import console, device_of_runs, spread, write_result
from fastmagn.config.command_line import OwnOptions, parse_own
from fastmagn.errors import InputError, check
from fastmagn.machine.command import run_command


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if requested."""
    parser = OwnOptions(
        "python -m benchmarks.scaling",
        __doc__.splitlines()[0],
        "Any field of the configuration may follow; python -m fastmagn.train --help_all lists them.",
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes (default: 1 2)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each number of processes (default: 3)")
    parser.add_argument("--epochs", type=int, default=2, help="epochs per run; only the last one counts (default: 2)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options, fields = parse_own(parser, arguments)
    check(options.repeats >= 1, "repeats", options.repeats, "1 or more")
    check(options.epochs >= 2, "epochs", options.epochs, "2 or more: the first is not counted")
    check(min(options.processes) >= 1, "processes", options.processes, "1 or more each")
    rates: dict[int, list[float]] = {count: [] for count in options.processes}
    for _ in range(options.repeats):
        for count in options.processes:
            rates[count].append(images_per_s(count, options.epochs, fields))
    first = spread(rates[options.processes[0]])["median"] / options.processes[0]
    measured = {
        str(count): {"images_per_s": spread(values), "efficiency_pct": 100 * spread(values)["median"] / (first * count)}
        for count, values in rates.items()
    }
    print_table(measured)
    if options.out:
        settings = {"epochs": options.epochs, "repeats": options.repeats, "arguments": fields}
        write_result(options.out, "scaling", settings, {"processes": measured}, device_of_runs(fields))
    return 0


def images_per_s(count: int, epochs: int, fields: list[str]) -> float:
    """Return the images/s of the last epoch of a new run on `count` processes.

    Raises:
        InputError: The run failed.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        settled = ["--train.epochs", str(epochs), "--run_dir", str(run_dir), "--eval.num_images", str(count)]
        command = [*launcher, "-m", "fastmagn.train", *fields, *settled, "--eval.corruption_set", "c15"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(
                f"torchrun --nproc_per_node {count} ended with status {done.returncode}: {done.stderr.strip()[-500:]}"
            )
        rows = (run_dir / "metrics.jsonl").read_text().splitlines()
    return json.loads(rows[-1])["images_per_s"]


def print_table(measured: dict[str, dict[str, Any]]) -> None:
    """Print one row per number of processes."""
    table = Table(title="the same global batch on several processes")
    for column in ("processes", "images/s", "lowest..highest", "efficiency, %"):
        table.add_column(column, justify="right")
    for count, row in measured.items():
        rate = row["images_per_s"]
        table.add_row(
            count,
            f"{rate['median']:,.0f}",
            f"{rate['lowest']:,.0f}..{rate['highest']:,.0f}",
            f"{row['efficiency_pct']:.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    run_command(main)

"""python -m benchmarks.gpu.view_times: the time of making views on a GPU: the device's own, and until the host sees it.

    python -m benchmarks.gpu.view_times [--batches 512 8192] [--methods magn_augmix prime] [--out FILE.json]

The device's time is the sum over the kernels, from PyTorch's profiler. The elapsed time is that of many calls, one
after another, which the host may limit; in training it makes the views of the next step while the device works on this
one. Views/s count all views that a step trains on, the clean ones too.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import console, seconds, spread, synchronise, write_result
from benchmarks.method_views import start, views_of
from fastmagn.config.command_line import OwnOptions
from fastmagn.errors import check
from fastmagn.machine.command import run_command

CALLS = 20


def main(arguments: list[str]) -> int:
    """Measure, print the table, and write the JSON if requested."""
    parser = OwnOptions("python -m benchmarks.gpu.view_times", __doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["magn_augmix"], help="methods (default: magn_augmix)")
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 8192], help="images (default: 512 8192)")
    parser.add_argument("--size", type=int, default=32, help="side of the images, px (default: 32)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="device (default: cuda)")
    parser.add_argument("--turns", type=int, default=5, help="timed turns of 20 calls (default: 5)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    check(options.turns >= 1, "turns", options.turns, "1 or more")
    check(min(options.batches) >= 1, "batches", options.batches, "1 or more each")
    rows = {
        f"{method}, {size}": measured(method, size, options) for method in options.methods for size in options.batches
    }
    table = Table(title=f"views of {options.size} x {options.size} px on {options.device}")
    for column in ("", "views", "device, ms", "elapsed, ms", "views/s, device", "views/s, elapsed"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        elapsed, views, own = row["elapsed_ms"]["median"], row["num_views"], row["device_ms"]["median"]
        by_device = f"{1000 * views / own:,.0f}" if own else ""
        table.add_row(name, str(views), f"{own:.3f}", f"{elapsed:.3f}", by_device, f"{1000 * views / elapsed:,.0f}")
    console.print(table)
    if options.out:
        settings = {
            "size": options.size,
            "methods": options.methods,
            "batches": options.batches,
            "turns": options.turns,
            "calls": CALLS,
        }
        write_result(options.out, "gpu.view_times", settings, {"views": rows}, torch.device(options.device))
    return 0


def measured(method: str, batch_size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the number of views of a batch, and the times in ms of making them."""
    like = {"device": options.device, "size": options.size, "data_dir": None, "network": "resnet_small"}
    run = start(method, argparse.Namespace(**like, batch=batch_size, step_batch=batch_size), batch_size)
    batch = next(run.source.batches(0))
    views = views_of(run, batch)

    def make() -> None:
        for _ in range(CALLS):
            views_of(run, batch)
        synchronise(run.device)

    make()
    elapsed = [1000 * seconds(make) / CALLS for _ in range(options.turns)]
    device = [device_ms(make, options.device) / CALLS for _ in range(options.turns)]
    return {"num_views": len(views), "elapsed_ms": spread(elapsed), "device_ms": spread(device)}


def device_ms(work: Callable[[], None], device: str) -> float:
    """Return the time in ms of the kernels that are run, one after another; 0 on a CPU."""
    with profile(activities=[ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU]) as profiler:
        work()
    kernels = [event for event in profiler.key_averages() if str(event.device_type).endswith("CUDA")]
    return sum(event.self_device_time_total for event in kernels) / 1000


if __name__ == "__main__":
    run_command(main)

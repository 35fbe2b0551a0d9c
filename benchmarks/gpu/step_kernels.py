"""python -m benchmarks.gpu.step_kernels: where a training step's time on the device goes, kernel by kernel.

    python -m benchmarks.gpu.step_kernels [--config configs/NAME.yaml] [--section.field value ...] [--out FILE.json]

The steps are the program's own, with the views of the next step made ahead. `step_ms` is their mean time, and
`launched_ms` when the host had launched the last of them, per step: where the two are equal, the host is the limit.
Kernels are those of PyTorch's profiler: self times, ms per step. On a CPU they are PyTorch's operations.
"""

import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import console, synchronise, write_result
from benchmarks.train import endless_batches, tensors_of
from fastmagn.config.command_line import OwnOptions, parse_config, parse_own
from fastmagn.config.text import flatten
from fastmagn.data import load_data, split_validation
from fastmagn.errors import check
from fastmagn.machine.command import run_command
from fastmagn.machine.hardware import keep_memory_on_cpu, set_backends, settle_hardware
from fastmagn.training.build import build_run
from fastmagn.training.prefetch import made_ahead
from fastmagn.training.step import Run, make_pieces, train_step

WARM_UP_STEPS = 8  # compile, choose algorithms, record the optimiser
SHOWN = 25
FAMILIES = {  # by words of a kernel's name; the first that fits
    "compiled: batch normalisation, ReLU, sums, loss": ("triton",),
    "gradient of a convolution's input": ("dgrad",),
    "gradient of a convolution's weights": ("wgrad",),
    "convolution": ("fprop", "cutlass", "conv"),
    "copies": ("memcpy", "memset"),
}
VIEWS = "kernel"  # the name of our kernels in machine code


def main(arguments: list[str]) -> int:
    """Measure, print the tables, and write the JSON if requested."""
    parser = OwnOptions(
        "python -m benchmarks.gpu.step_kernels",
        __doc__.splitlines()[0],
        "Any field of the configuration may follow; python -m fastmagn.train --help_all lists them.",
    )
    parser.add_argument(
        "--steps", type=int, default=20, help="steps that are timed; a quarter is profiled (default: 20)"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options, fields = parse_own(parser, arguments)
    check(options.steps >= 4, "steps", options.steps, "4 or more")
    config = settle_hardware(parse_config(fields, parser.prog, parser.description))
    device = torch.device(config.device)
    set_backends(device, config.train.deterministic, config.train.amp)
    keep_memory_on_cpu(config.device)
    image_set = load_data(config.data)
    run = build_run(config, image_set, split_validation(image_set, 0, config.train.seed)[0])
    measured = measure(run, options.steps)
    print_tables(measured)
    if options.out:
        settings = {"steps": options.steps, "config": flatten(config)}
        write_result(options.out, "gpu.step_kernels", settings, measured, device)
    return 0


def measure(run: Run, steps: int) -> dict[str, Any]:
    """Time steps of the method, then profile a quarter as many."""
    run.model.train()
    epoch = run.config.train.clean_epochs
    ahead = made_ahead(endless_batches(run), lambda batch: make_pieces(run, batch, epoch), tensors_of, run.device)

    def do(count: int) -> None:
        for _ in range(count):
            train_step(run, next(ahead), 0)

    do(WARM_UP_STEPS)
    synchronise(run.device)
    start = time.perf_counter()
    do(steps)
    launched = time.perf_counter() - start
    synchronise(run.device)
    total = time.perf_counter() - start
    on_cuda = run.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_cuda else ProfilerActivity.CPU]) as profiler:
        do(steps // 4)
        synchronise(run.device)
    kernels = kernels_of(profiler, on_cuda, steps // 4)
    return {
        "step_ms": 1000 * total / steps,
        "launched_ms": 1000 * launched / steps,
        "families_ms": families_of(kernels),
        "kernels": kernels,
    }


def kernels_of(profiler: profile, on_cuda: bool, steps: int) -> list[dict[str, Any]]:
    """Return name, ms and launches of each kernel, per step, the longest first."""
    kernels = []
    for event in profiler.key_averages():
        if on_cuda and (not str(event.device_type).endswith("CUDA") or "#" in event.key):
            continue  # a mark of the profiler's own
        spent_us = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        kernels.append({"name": event.key, "ms": spent_us / steps / 1000, "launches": event.count / steps})
    return sorted(kernels, key=lambda kernel: -kernel["ms"])


def families_of(kernels: list[dict[str, Any]]) -> dict[str, float]:
    """Return the ms per step of the kinds of kernels."""
    spent: dict[str, float] = {}
    for kernel in kernels:
        name = kernel["name"].lower()
        family = next((family for family, words in FAMILIES.items() if any(word in name for word in words)), "others")
        if kernel["name"] == VIEWS:
            family = "views"
        spent[family] = spent.get(family, 0.0) + kernel["ms"]
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def print_tables(measured: dict[str, Any]) -> None:
    """Print the families, and the longest kernels."""
    console.print(f"step {measured['step_ms']:.2f} ms; launched after {measured['launched_ms']:.2f} ms")
    for title, rows in (
        ("families", [(name, ms, "") for name, ms in measured["families_ms"].items()]),
        ("kernels", [(k["name"], k["ms"], f"{k['launches']:g}") for k in measured["kernels"][:SHOWN]]),
    ):
        table = Table(title=title)
        for column in ("", "ms", "launches"):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for name, ms, launches in rows:
            table.add_row(name[:60], f"{ms:.3f}", launches)
        console.print(table)


if __name__ == "__main__":
    run_command(main)

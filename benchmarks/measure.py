"""What the benchmarks share: clocks, medians with their spread, and the JSON file of a result."""

import multiprocessing
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fastmagn.config.command_line import parse_config
from fastmagn.errors import InputError, check, one_line
from fastmagn.machine.console import console
from fastmagn.machine.environment import environment
from fastmagn.machine.files import write_json
from fastmagn.machine.hardware import settle_hardware


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes, by the wall clock. Work on a CUDA device must synchronise before it returns."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def repeated(work: Callable[[], object], repeats: int) -> list[float]:
    """Return how long each of `repeats` calls takes, in seconds, after one warm-up call (compilation, caches)."""
    work()
    return [seconds(work) for _ in range(repeats)]


def spread(values: list[float]) -> dict[str, float]:
    """Return the median, the lowest and the highest of repeated measurements."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def mean_sd(values: list[float]) -> dict[str, float]:
    """Return the mean and the standard deviation (n - 1) of repeated runs; that of one run is 0."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def mean_sd_text(number: dict[str, float], num_runs: int, scale: float, digits: int) -> str:
    """Return what `mean_sd` returns, times `scale`, as the cell of a table; one run has no deviation."""
    mean, sd = (f"{scale * number[name]:.{digits}f}" for name in ("mean", "sd"))
    return f"{mean} ± {sd}" if num_runs > 1 else mean


def extra_memory_mib(work: Callable[[], object], device: torch.device, output_mib: float) -> float:
    """Return the peak memory that one call needs in addition to its output, in MiB, at least 0.

    On CUDA this is the device's memory. On a CPU (Linux) it is the process's memory: it is rounded up to pages, and
    memory that was freed earlier and is reused does not count.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before_bytes = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        used_mib = (torch.cuda.max_memory_allocated(device) - before_bytes) / 2**20
    else:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak to the current use
        before_mib = _status_mib("VmHWM")
        work()
        used_mib = _status_mib("VmHWM") - before_mib
    return max(0.0, used_mib - output_mib)


def wait_for_workers() -> None:
    """Wait until the processes that `multiprocessing` has started have used hardly any CPU for 0.2 s (Linux)."""
    used_s = -1.0
    while (now_s := sum(_cpu_s(worker.pid) for worker in multiprocessing.active_children())) - used_s > 0.02:
        used_s = now_s
        time.sleep(0.2)


def _cpu_s(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib() -> float:
    """Return the resident memory of the process, in MiB (Linux)."""
    return _status_mib("VmRSS")


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(field))


def check_seeds(seeds: list[int]) -> None:
    """Raise InputError if a seed is given twice: it would count as two runs."""
    check(len(set(seeds)) == len(seeds), "seeds", seeds, "each seed once")


def words_of_runs(runs: list[list[str]]) -> dict[str, list[str]]:
    """Return the words of the arguments of each `--run NAME ARGUMENTS`, as a shell splits them, by its name.

    Raises:
        InputError: Two have one name, a name is not that of a folder, or a quotation has no end.
    """
    names = [name for name, _ in runs]
    check(len(set(names)) == len(names), "run", names, "a name for each recipe")
    words = {}
    for name, text in runs:
        check(name not in ("", ".", "..") and "/" not in name, "run", name, "the name of a folder")
        try:
            words[name] = shlex.split(text)
        except ValueError as error:  # also a backslash at the end
            raise InputError(f"run {name}: got {text!r}; expected words as in a shell ({one_line(error)}).") from error
    return words


def device_of_runs(*runs: list[str]) -> torch.device:
    """Return the device on which `fastmagn.train` trains with these arguments; CUDA if one of several runs has it."""
    devices = {settle_hardware(parse_config(arguments, "fastmagn.train", "")).device for arguments in runs}
    return torch.device("cuda" if "cuda" in devices else "cpu")


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def write_result(
    path: Path,
    benchmark: str,
    settings: dict[str, Any],
    measured: dict[str, Any],
    device: torch.device,
) -> None:
    """Write a benchmark's result as strict JSON, with its command, its commit and its environment.

    Args:
        path: The file; an existing one is replaced.
        benchmark: The benchmark's name, as in `python -m benchmarks.NAME`.
        settings: The settings: sizes, numbers of images, repeats.
        measured: The measurements, under names that end in their units.
        device: The device that did the work; the file names it.
    """
    result = {
        "benchmark": benchmark,
        "command": shlex.join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]]),
        "environment": environment(device),
        "settings": settings,
        **measured,
    }
    write_json(path, result)
    console.print(f"written: {path}", soft_wrap=True)

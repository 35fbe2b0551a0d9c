"""What the benchmarks share: clocks, medians with their spread, and the JSON that holds a result."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fastmagn.files import write_json
from fastmagn.runlog import environment

console = Console(highlight=False)


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes, by the wall clock. Work on a CUDA device must synchronise before it returns."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def repeated(work: Callable[[], object], repeats: int) -> list[float]:
    """How long each of `repeats` calls takes, in seconds, after one that is not counted (compilation, caches)."""
    work()
    return [seconds(work) for _ in range(repeats)]


def spread(values: list[float]) -> dict[str, float]:
    """The median of repeated measurements with the lowest and the highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def write_result(path: Path, benchmark: str, settings: dict[str, Any], measured: dict[str, Any]) -> None:
    """Write a benchmark's result as strict JSON, with the command, the commit and the environment it was measured in.

    Args:
        path: The file; replaced where it exists.
        benchmark: Its name, as in `python -m benchmarks.NAME`.
        settings: What was asked for: sizes, numbers of images, repeats.
        measured: What came out, under names that end in their units.
    """
    result = {
        "benchmark": benchmark,
        "command": " ".join(["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]]),
        "environment": environment(torch.device("cpu")),
        "settings": settings,
        **measured,
    }
    write_json(path, result)
    console.print(f"written: {path}", soft_wrap=True)

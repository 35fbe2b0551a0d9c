"""Profiling on demand: `--train.profile N` traces N steps of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from fastmagn.errors import counted, one_line
from fastmagn.machine.console import console, warn
from fastmagn.machine.files import replace_file, write_text

SKIPPED_STEPS = 5  # they compile, and cuDNN chooses its algorithms
TABLE_ROWS = 40


@contextmanager
def profiled(folder: Path, num_steps: int, device: torch.device) -> Iterator[Callable[[], None]]:
    """Yields a function to call after each step; `num_steps` steps are traced once (0: none).

    Writes two files into `folder`: `trace.json`, for Perfetto or chrome://tracing, and `summary.txt`, the operations
    sorted by total time.
    """
    if num_steps == 0:
        yield lambda: None
        return
    on_cuda = device.type == "cuda"

    def finish(profiler: profile) -> None:
        sort_by = f"self_{device.type}_time_total"
        table = profiler.key_averages().table(sort_by=sort_by, row_limit=TABLE_ROWS)
        try:
            with replace_file(folder / "trace.json") as file:
                profiler.export_chrome_trace(file.name)
            write_text(folder / "summary.txt", table)
        except (OSError, RuntimeError) as error:
            warn(f"{folder} not written ({one_line(error)}). The run continues.")
            return
        console.print(f"profile of {counted(num_steps, 'step')}: {folder}/trace.json and summary.txt", soft_wrap=True)

    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])],
        schedule=schedule(wait=SKIPPED_STEPS - 1, warmup=1, active=num_steps, repeat=1),
        on_trace_ready=finish,
    ) as profiler:
        yield profiler.step

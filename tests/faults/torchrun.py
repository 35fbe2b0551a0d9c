"""torchrun with two processes, one of which is killed: the others are restarted and the run resumes."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.faults.harms import Bench, Outcome, arguments_for
from tests.faults.judge import differences
from tests.helpers.processes import ROOT, TWO_PROCESSES, start

TIMEOUT_S = 300


def killed_worker(bench: Bench, draw: random.Random) -> Outcome:
    """SIGKILL to one of the two workers at a random moment after the first checkpoint."""
    undisturbed = bench.folder.parent / "undisturbed-torchrun"
    if not undisturbed.exists():
        process = _launch(undisturbed)
        output = _ended(process)
        assert process.returncode == 0, output
    process = _launch(bench.run_dir)
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if (bench.run_dir / "checkpoints" / "last.pt").exists():
            break
        time.sleep(0.005)
    time.sleep(draw.uniform(0, bench.training_s))
    rank = draw.randrange(2)
    workers = _children(process.pid)
    if len(workers) == 2:
        os.kill(workers[rank], signal.SIGKILL)
    where = f"worker {rank} of {len(workers)}"
    try:
        output = _ended(process)
    except subprocess.TimeoutExpired:
        process.terminate()
        output = "".join(process.communicate())
        return Outcome(where, "hung", [f"no end within {TIMEOUT_S} s: {output[-300:]}"])
    if process.returncode:
        return Outcome(where, "failed", [f"exit status {process.returncode}: {output[-1000:]}"])
    then = "restarted and resumed" if "resumed at epoch" in output or "trained already" in output else "no restart"
    return Outcome(where, then, differences(bench.run_dir, undisturbed))


def _launch(run_dir: Path) -> subprocess.Popen[str]:
    options = ("--max-restarts", "1", "--monitor-interval", "0.1", "-m", "fastmagn.train")
    return start([*TWO_PROCESSES, *options, *arguments_for(run_dir)], ROOT)


def _ended(process: subprocess.Popen[str]) -> str:
    """All that it printed; it ends within the limit, or subprocess.TimeoutExpired is raised."""
    return "".join(process.communicate(timeout=TIMEOUT_S))


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []

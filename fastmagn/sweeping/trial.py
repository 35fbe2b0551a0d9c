"""A trial's process: `python -m fastmagn.train` on a run folder's config.yaml, its output in RUN/trial.log.

A process of its own, since signals reach Python's main thread only, and since the GPU's memory must be free again
when it ends, however it ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from fastmagn.errors import Interrupted
from fastmagn.machine.command import run_command
from fastmagn.runs.paths import CONFIG, TRIAL_LOG

POLL_S = 0.5
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
INTERRUPTED = {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGTERM}


class Outcome(NamedTuple):
    """How a trial ended; `error` is one line, for a failed one."""

    name: str
    state: Literal["finished", "interrupted", "failed"]
    error: str = ""


def run_trial(run_dir: Path, folder: Path, threads: int, should_stop: Callable[[], bool]) -> Outcome:
    """Train and measure the run whose folder holds config.yaml, or go on with it; wait until it has ended.

    Args:
        run_dir: The run folder; its name is the trial's.
        folder: Where relative names in its configuration start.
        threads: Of its process.
        should_stop: Asked twice a second; once it says yes, the run is asked to save and leave, and waited for.
    """
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")}
    command = [
        sys.executable,
        "-m",
        "fastmagn.sweeping.trial",
        str(os.getpid()),
        "--config",
        str(run_dir / CONFIG),
    ]
    with (run_dir / TRIAL_LOG).open("ab") as log:
        begin = log.tell()
        # A session of its own: Ctrl-C at the terminal reaches the sweep only, which asks its trials one by one.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        asked = False
        while (status := _ended(process)) is None:
            if not asked and should_stop():
                process.terminate()
                asked = True
    if status == 0:
        return Outcome(run_dir.name, "finished")
    if asked or status in INTERRUPTED:
        return Outcome(run_dir.name, "interrupted")
    return Outcome(run_dir.name, "failed", error_line(run_dir / TRIAL_LOG, begin, status))


def error_line(log: Path, begin: int, status: int) -> str:
    """What a failed trial said last: its `error: ` line, the last line of its traceback, or how it ended."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines
    if status < 0:
        return f"ended by {signal.Signals(-status).name}" + (f" after: {said[-1]}" if said else "")
    return said[-1] if said else f"exit status {status}"


def _ended(process: subprocess.Popen) -> int | None:
    try:
        return process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return None


def leave_with(parent: int) -> None:
    """Be told to save and leave (SIGTERM) when the process that started this one, `parent`, dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        raise Interrupted(signal.SIGTERM)  # it has died already


def main(arguments: list[str]) -> int:
    """`python -m fastmagn.sweeping.trial PARENT`, and then what `python -m fastmagn.train` takes."""
    leave_with(int(arguments[0]))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # whoever interrupts a whole job: SIGTERM tells, once
    from fastmagn.train import main as train  # after the above: PyTorch takes seconds to import

    return train(arguments[1:])


if __name__ == "__main__":
    run_command(main)

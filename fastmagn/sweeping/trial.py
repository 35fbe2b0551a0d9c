"""A trial's process: `python -m fastmagn.train` on a run folder's config.yaml, with its output in RUN/trial.log.

A trial needs its own process: Python delivers signals to the main thread only, and the GPU's memory must be free again
after the trial, however it ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal, NamedTuple

from fastmagn.errors import Interrupted
from fastmagn.machine import signals
from fastmagn.machine.command import run_command
from fastmagn.runs.paths import CONFIG, TRIAL_LOG
from fastmagn.train import main as train

POLL_S = 0.5
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
INTERRUPTED = {*(128 + number for number in signals.ALL), -signal.SIGTERM, -signal.SIGHUP}


class Outcome(NamedTuple):
    """How a trial ended. `error` is one line if it failed, else empty."""

    name: str
    state: Literal["finished", "interrupted", "failed"]
    error: str = ""


def run_trial(
    run_dir: Path, folder: Path, threads: int | None, should_stop: Callable[[], bool], imports: Path | None = None
) -> Outcome:
    """Train and measure a run, or resume it, and wait until it has ended.

    Args:
        run_dir: The run folder, which holds config.yaml. Its name is the trial's name.
        folder: The folder that relative paths in the configuration start from.
        threads: Number of threads of the process; None leaves it to the process.
        should_stop: Called before the run starts, which it does not do if that returns True, and then twice a second.
            Once it returns True, the run is told to save and exit.
        imports: The file that `--import` names.
    """
    if should_stop():
        return Outcome(run_dir.name, "interrupted")
    limits = {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    environment = os.environ | limits
    command = [
        sys.executable,
        "-m",
        "fastmagn.sweeping.trial",
        str(os.getpid()),
        "--config",
        str(run_dir / CONFIG),
        *([] if imports is None else ["--import", str(imports)]),
    ]
    with _open_log(run_dir / TRIAL_LOG) as log:
        begin = log.tell()
        # In its own session Ctrl-C at the terminal does not reach it: the sweep tells its trials one by one.
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


def _open_log(path: Path) -> IO[bytes]:
    """The trial's log, or the null device if the disk refuses it: a trial does not need one."""
    try:
        return path.open("ab")
    except OSError:
        return open(os.devnull, "ab")


def error_line(log: Path, begin: int, status: int) -> str:
    """Why a trial failed: its `error: ` line, the last line of its traceback, or its exit status.

    Args:
        log: The trial's output.
        begin: Where this attempt's output begins in the log, in bytes.
        status: The exit status of the process, negative if a signal ended it.
    """
    output = b""
    with suppress(OSError), log.open("rb") as file:
        file.seek(begin)
        output = file.read()
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = (errors or lines or [""])[-1]
    if status < 0:
        return f"ended by {signal.Signals(-status).name}" + (f" after: {last}" if last else "")
    return last or f"exit status {status}"


def _ended(process: subprocess.Popen) -> int | None:
    try:
        return process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return None


def stop_with_parent(parent: int) -> None:
    """Ask the kernel for a SIGTERM when the parent process dies: the run then saves and exits.

    Args:
        parent: The id of the process that started this one.

    Raises:
        Interrupted: The parent has died already.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        raise Interrupted(signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """`python -m fastmagn.sweeping.trial PARENT`, followed by the arguments of `python -m fastmagn.train`."""
    stop_with_parent(int(arguments[0]))
    # A scheduler may send SIGINT to all processes of a job. The sweep's SIGTERM is enough.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return train(arguments[1:])


if __name__ == "__main__":
    run_command(main)

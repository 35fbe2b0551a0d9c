"""Commands in processes of their own, without the seconds of imports that a new interpreter takes.

A trial is a fork of this process, which has imported the trainer and started no thread: a process like any other, with
its own number, memory and files, which the kernel ends by SIGKILL with nothing said to it. What it leaves is what it
wrote. Not covered so: a machine that loses power (the kernel's own buffers survive a process).
"""

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fastmagn import evaluate, export, report, train
from fastmagn import sweep as sweep_command
from fastmagn.evaluation import corrupt_command
from fastmagn.machine.command import run_command

POLL_S = 0.0005  # a checkpoint of a few MB takes milliseconds to write
TIMEOUT_S = 300.0
COMMANDS = {
    "train": train.main,
    "evaluate": evaluate.main,
    "corrupt": corrupt_command.main,
    "report": report.main,
    "export": export.main,
    "sweep": sweep_command.main,
}


class Ended(NamedTuple):
    """How a process ended: its exit status, or minus the signal's number; and all that it printed."""

    status: int
    output: str


def start(
    command: str, arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None, append: bool = False
) -> int:
    """Fork a process that runs a command; `prepare` is called in it first. Its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _redirect(log, append)
        sys.argv = [command, *arguments]
        prepare()
        run_command(COMMANDS[command])
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _redirect(log: Path, append: bool) -> None:
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC), 0o644)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(file, descriptor)
    sys.stdout.reconfigure(line_buffering=True)


def import_what_it_imports(command: str, arguments: list[str], log: Path) -> None:
    """Run a command once in a process of its own, and import here all that it has imported there."""
    names = log.with_suffix(".modules")

    def report_modules() -> None:
        leave = os._exit

        def note(status: int) -> None:
            names.write_text("\n".join(sys.modules))
            leave(status)

        os._exit = note

    ended = run(command, arguments, log, prepare=report_modules)
    if ended.status:
        raise SystemExit(f"the undisturbed run failed:\n{ended.output}")
    for name in names.read_text().splitlines():
        with suppress(Exception):
            importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would not be in the forked processes"


def wait_until(pid: int, condition: Callable[[], bool]) -> bool:
    """Wait until the condition holds; False where the process ended, or took too long, before."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if _has_ended(pid) or time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def finish(pid: int, log: Path) -> Ended:
    """Wait for the process; one that hangs is killed, which its status shows."""
    deadline = time.monotonic() + TIMEOUT_S
    while not _has_ended(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    _, status = os.waitpid(pid, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))


def run(command: str, arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> Ended:
    """A command from its start to its end."""
    return finish(start(command, arguments, log, prepare), log)

"""The preloaded library `shim.c`: built by gcc, loaded by a new Python process, armed in a forked process."""

import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from tests.helpers.processes import ROOT, command_environment

SOURCE = Path(__file__).with_name("shim.c")


class Fault(IntEnum):
    """What happens to a call; the numbers are those of shim.c."""

    COUNT = 0
    KILL_BEFORE = 1
    FAIL = 2
    HALF = 3
    KILL_AFTER = 4
    SIGNAL = 5


class Call(NamedTuple):
    """A call that changed a file. `before` is the older name of a rename or a link, else empty."""

    number: int
    kind: str
    path: str
    before: str


def is_loaded() -> bool:
    return hasattr(ctypes.CDLL(None), "fault_arm")


def build(folder: Path) -> Path:
    """Build the library into `folder`.

    Raises:
        SystemExit: There is no gcc.
    """
    if shutil.which("gcc") is None:
        raise SystemExit("tests.faults.calls: needs gcc, which builds the library that makes calls fail.")
    library = folder / "shim.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl", "-lpthread"], check=True)
    return library


def run_with_library(module: str, arguments: Sequence[str]) -> int:
    """Run a module in a process that has the library. Returns its exit status."""
    with tempfile.TemporaryDirectory(prefix="fastmagn-shim-") as folder:
        preloaded = command_environment(LD_PRELOAD=str(build(Path(folder))))
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=ROOT, env=preloaded, check=False).returncode


def arm(
    fault: Fault, scope: Path, *, target: int = 0, error: int = 0, is_sticky: bool = False, log: Path | None = None
) -> None:
    """From now on, count this process's calls on `scope` and below it; the fault comes at the call number `target`.

    `error` is the error of FAIL and the number of SIGNAL's signal.
    """
    logged = b"" if log is None else bytes(log)
    ctypes.CDLL(None).fault_arm(int(fault), target, error, int(is_sticky), bytes(scope), logged)


def read_log(log: Path) -> list[Call]:
    calls = [line.split("\t") for line in log.read_text().splitlines()]
    return [Call(int(number), kind, path, before) for number, kind, path, before in calls]

"""Processes that tests start: modules of this checkout run by this Python, and the wait for what they do."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_S = 600.0  # a guard, for machines that do much else
LAUNCHER = "torch.distributed.run"
TWO_PROCESSES = [LAUNCHER, "--standalone", "--nproc_per_node", "2"]


def command_environment(**variables: str) -> dict[str, str]:
    """This process's environment, its number of threads among it (see `conftest`), with this checkout's packages."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])} | variables


def start(words: Sequence[str | Path], folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Python in `folder` on a module, a script, or options such as `-c`, with arguments; output and errors are pipes.

    It leads a process group of its own, so that Ctrl-C at the tests does not reach it.
    """
    return subprocess.Popen(
        _python(words),
        cwd=folder,
        env=_environment(words, variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(
    words: Sequence[str | Path], folder: Path, *, expect: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The same from start to end; the exit status is `expect`."""
    done = subprocess.run(
        _python(words),
        cwd=folder,
        env=_environment(words, variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == expect, (words, done.stdout, done.stderr)
    return done


def _python(words: Sequence[str | Path]) -> list[str]:
    first, *others = map(str, words)
    is_module = not first.startswith("-") and not first.endswith(".py")
    return [sys.executable, *(["-m"] if is_module else []), first, *others]


def _environment(words: Sequence[str | Path], variables: dict[str, str]) -> dict[str, str]:
    environment = command_environment(**variables)
    if words[0] == LAUNCHER:  # its processes share the cores out themselves, and may take more than one each
        environment.pop("NUMBA_NUM_THREADS", None)
    return environment


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Until the condition holds; a process that ends before that is a failure."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)

"""Compile groups of kernels in several processes at once: numba compiles one kernel at a time in a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO

from fastmagn_kernels.compiling import are_kept, shared_folder
from fastmagn_kernels.threads import num_threads

# The same packages as here, however this process has found them.
_WORKER = "import sys; sys.path[:] = sys.argv[2:]; from fastmagn.warming.worker import main; main(int(sys.argv[1]))"


def compile_ahead(groups: Iterable[str], tell: Callable[[], None]) -> None:
    """Compile what the cache does not have yet of the kernels that a run needs, if several threads are allowed.

    What fails is compiled when it is needed, as it is on one thread. Of torchrun's processes on a host, the first does
    it; the others should wait for it.

    Args:
        groups: Names of groups (`kernels`).
        tell: Called first, if there is something to compile.
    """
    is_python = sys.executable and not getattr(sys, "frozen", False)  # a frozen program would start itself
    if not is_python or num_threads() == 1 or shared_folder() is None or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    missing = [name for name in groups if not are_kept(name)]
    if missing:
        tell()
        with suppress(OSError):  # no process can be started
            compile_groups(missing)


def compile_groups(groups: list[str]) -> dict[str, str]:
    """Compile these groups of kernels in at most `num_threads()` processes, or load them where they are in the cache.

    An exception here, such as an interruption, ends the processes. The cache then has whole kernels only.

    Args:
        groups: Names of groups; those that take longest first.

    Returns:
        What went wrong, in one line, by the name of the group.

    Raises:
        OSError: A process cannot be started.
    """
    left, faults = iter(groups), {}
    number = min(num_threads(), len(groups))

    def serve(worker: subprocess.Popen[str], answers: TextIO) -> None:
        for name in left:  # all threads take from it
            with suppress(BrokenPipeError):
                print(name, file=worker.stdin, flush=True)
            answer = answers.readline()
            if answer != "\n":
                faults[name] = answer.strip() or f"its process ended with status {worker.wait()}"
            if not answer:
                return

    with ThreadPoolExecutor(number) as pool, ExitStack() as stack:
        workers = [stack.enter_context(_worker()) for _ in range(number)]
        for served in [pool.submit(serve, *worker) for worker in workers]:
            served.result()
    return faults


@contextmanager
def _worker() -> Iterator[tuple[subprocess.Popen[str], TextIO]]:
    """A process, and the pipe of its answers: its output may hold what anything prints when Python starts."""
    variables = {"NUMBA_CACHE_DIR": str(shared_folder().parent), "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    reading, writing = os.pipe()
    with os.fdopen(reading) as answers:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, str(writing), *sys.path],
                env=os.environ | variables,
                pass_fds=[writing],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C at the terminal reaches this process alone, which ends the others
            )
        finally:
            os.close(writing)
        try:
            yield process, answers
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                with suppress(OSError):  # what the process has not read
                    process.stdin.close()

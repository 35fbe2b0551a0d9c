"""How the threads of PyTorch's CPU operations wait for one another, and for a CPU that other processes use."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fastmagn.machine.console import warn

# How often a waiting thread looks before it sleeps. By itself GNU OpenMP looks for milliseconds, and takes that time
# from other processes on the same cores. `benchmarks.waiting` compares the settings.
SPIN_COUNT = 10_000
_SET_BY_USERS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
_WATCHED_S = 30
_CROWDED = 0.3  # of the time; beside one busy process for each CPU it is about a half
_SCHEDULED = Path("/proc/thread-self/schedstat")  # ns on a CPU, ns of waiting for one, time slices


def bound_spinning() -> None:
    """Let a thread that waits sleep soon, unless the user has chosen how they wait.

    GNU OpenMP reads the environment when it is loaded, so this does nothing once PyTorch has been imported.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _SET_BY_USERS):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def waited_s() -> float | None:
    """The time, s, that this thread has waited for a CPU while it had work; None where the kernel does not count it."""
    try:
        return int(_SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def crowd_watch(num_threads: int) -> Callable[[], None]:
    """Return a function for a loop of this thread to call: it warns once if other processes hold up its operations.

    Args:
        num_threads: Of PyTorch's CPU operations. A single thread waits for no other, so there is nothing to advise.
    """
    since, waited, is_over = time.monotonic(), waited_s(), num_threads == 1

    def look() -> None:
        nonlocal since, waited, is_over
        now = time.monotonic()
        if is_over or waited is None or now - since < _WATCHED_S:
            return
        before, waited = waited, waited_s()
        share, since = ((waited or 0) - before) / (now - since), now
        if share > _CROWDED:
            is_over = True
            warn(
                f"other processes use the CPUs: training spent {share:.0%} of the last {_WATCHED_S} s waiting for one."
                f" Its {num_threads} threads also wait for each other; with OMP_NUM_THREADS=1, training may be several"
                " times faster here."
            )

    return look

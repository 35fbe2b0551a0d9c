"""How the threads of PyTorch's CPU operations wait for one another."""

import os
import sys

# How often a waiting thread looks before it sleeps. By itself GNU OpenMP looks for milliseconds, and takes that time
# from other processes on the same cores. `benchmarks.waiting` compares the settings.
SPIN_COUNT = 10_000
_SET_BY_USERS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def bound_spinning() -> None:
    """Let a thread that waits sleep soon, unless the user has chosen how they wait.

    GNU OpenMP reads the environment when it is loaded, so this does nothing once PyTorch has been imported.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _SET_BY_USERS):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)

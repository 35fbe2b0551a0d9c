"""The threads of a command's CPU operations wait as they should: what GNU OpenMP itself reports when it is loaded."""

import os
import subprocess
import sys

import pytest

from fastmagn.machine.waiting import SPIN_COUNT

COMMAND = """
from fastmagn.machine.command import run_command

def main(arguments):
    import torch
    return 0

run_command(main)
"""


def reported(**environment: str) -> dict[str, str]:
    """OpenMP's settings in a command with these environment variables."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    variables = {name: value for name, value in os.environ.items() if name not in names}
    variables |= {"OMP_DISPLAY_ENV": "VERBOSE"} | environment
    done = subprocess.run([sys.executable, "-c", COMMAND], env=variables, capture_output=True, text=True, check=True)
    rows = [row.partition("=") for row in done.stderr.splitlines()]
    settings = {name.strip(): value.strip(" '") for name, _, value in rows}
    if "GOMP_SPINCOUNT" not in settings:
        pytest.skip("this PyTorch does not use GNU OpenMP")
    return settings


@pytest.mark.process
def test_a_waiting_thread_sleeps_soon():
    assert reported()["GOMP_SPINCOUNT"] == str(SPIN_COUNT)


@pytest.mark.process
def test_what_the_user_has_set_stays():
    assert reported(GOMP_SPINCOUNT="77")["GOMP_SPINCOUNT"] == "77"
    active = reported(OMP_WAIT_POLICY="ACTIVE")
    assert active["OMP_WAIT_POLICY"] == "ACTIVE"
    assert active["GOMP_SPINCOUNT"] != str(SPIN_COUNT)

"""How threads wait: what GNU OpenMP itself reports when it is loaded, and what the kernel's scheduler counts."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastmagn.machine import waiting
from fastmagn.machine.waiting import SPIN_COUNT, crowd_watch, waited_s

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


@pytest.mark.process
def test_the_time_without_a_cpu_is_the_others_and_what_the_clocks_leave():
    """On one CPU with two busy processes: bounds that hold however busy the machine is besides."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    others = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(2)]

    def others_ran_s() -> float:
        assert all(other.poll() is None for other in others)
        return sum(int(Path(f"/proc/{other.pid}/schedstat").read_text().split()[0]) for other in others) / 1e9

    try:
        begin, waited = time.perf_counter(), waited_s()
        if waited is None:
            pytest.skip("this kernel does not count it")
        used, ran = time.thread_time(), others_ran_s()
        while (while_they_ran := others_ran_s() - ran) < 0.5:
            pass
        used = time.thread_time() - used
        waited = waited_s() - waited
        assert while_they_ran - 0.01 <= waited <= time.perf_counter() - begin - used + 0.01
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, allowed)


@pytest.fixture
def clock(monkeypatch):
    """The time and the time of waiting, s, as the test sets them."""
    shown = {"now": 100.0, "waited": 5.0}
    monkeypatch.setattr(waiting.time, "monotonic", lambda: shown["now"])
    monkeypatch.setattr(waiting, "waited_s", lambda: shown["waited"])
    return shown


def test_a_crowd_is_told_once_with_its_share(clock, capsys):
    look = crowd_watch(2)
    clock |= {"now": 120.0, "waited": 20.0}
    look()
    assert not capsys.readouterr().out  # too early to say
    clock |= {"now": 130.0, "waited": 17.0}
    look()
    told = " ".join(capsys.readouterr().out.split())
    assert "spent 40% of the last 30 s waiting for one" in told
    assert "OMP_NUM_THREADS=1" in told
    clock |= {"now": 170.0, "waited": 57.0}
    look()
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("num_threads", "waited"), [(2, 13.0), (1, 35.0), (2, None)])
def test_nothing_is_told_of_a_quiet_machine_or_one_thread(clock, capsys, num_threads, waited):
    if waited is None:
        clock["waited"] = None
    look = crowd_watch(num_threads)
    clock |= {"now": 130.0, "waited": waited}
    look()
    assert not capsys.readouterr().out


def test_a_kernel_that_does_not_count_has_no_time(monkeypatch, tmp_path):
    for text in (None, "", "12", "x y z"):
        if text is not None:
            (tmp_path / "schedstat").write_text(text)
        monkeypatch.setattr(waiting, "_SCHEDULED", Path(tmp_path / "schedstat"))
        assert waited_s() is None

"""PyTorch's threads while a command runs: within what the process may use, and afterwards as before."""

import os

import numba
import pytest
import torch

from fastmagn.machine.processes import join_world
from fastmagn_kernels import threads
from tests.helpers.processes import ROOT, TWO_PROCESSES, run

CPU = torch.device("cpu")


@pytest.fixture
def many_threads(monkeypatch):
    """PyTorch has five threads, and there are eight CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(threads, "_cgroup_quota", lambda root, own: float("inf"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("quota", "expected"), [(float("inf"), 5), (8, 5), (3, 3), (1, 1)])
def test_one_process_has_no_more_threads_than_cpus(quota, expected, many_threads, monkeypatch):
    monkeypatch.setattr(threads, "_cgroup_quota", lambda root, own: quota)
    with join_world(CPU):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 5


@pytest.mark.parametrize(("omp", "expected"), [(None, 4), ("1", 4), ("3", 3), ("9", 4)])
@pytest.mark.parametrize("numba_threads", [1, 8])
def test_processes_of_torchrun_share_the_cpus(omp, expected, numba_threads, many_threads, monkeypatch, tmp_path):
    """NUMBA_NUM_THREADS caps the kernels, not PyTorch, whose number of threads decides the bits of its sums."""
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", numba_threads)
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    for name, value in {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: iter([(store, 0, 1)]))
    with join_world(CPU):
        assert torch.get_num_threads() == expected
        assert threads.num_threads() == min(expected, numba_threads)
    assert torch.get_num_threads() == 5


SLOW_FIRST = """
import functools, time, torch
from datetime import timedelta
import torch.distributed as dist
dist.init_process_group = functools.partial(dist.init_process_group, timeout=timedelta(seconds=2))
from fastmagn.machine.processes import join_world
with join_world(torch.device("cpu")) as (world, _):
    if world.rank == 0:
        time.sleep(5)
    assert world.gather(world.rank) == [0, 1]
    if world.rank == 1:
        time.sleep(5)
    assert world.max(world.rank) == 1
"""


@pytest.mark.process
@pytest.mark.slow
def test_processes_wait_longer_for_work_than_pytorchs_limit(tmp_path):
    (tmp_path / "slow_first.py").write_text(SLOW_FIRST)
    run([*TWO_PROCESSES, "slow_first.py"], tmp_path)


PROGRAM = """
import os, torch
os.sched_getaffinity = lambda pid: set(range(8))
from fastmagn.machine.processes import join_world
from fastmagn_kernels import threads
with join_world(torch.device("cpu")) as (world, _):
    numbers = world.gather((torch.get_num_threads(), threads.num_threads()))
    if world.rank == 0:
        print(numbers)
"""


@pytest.mark.process
def test_fewer_threads_for_kernels_than_cores_by_processes_are_taken(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    variables = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    shown = run(["-c", _launched(program)], ROOT, **variables).stdout
    assert shown == "[(4, 1), (4, 1)]\n"


def _launched(program) -> str:
    """torchrun in a process for which `run` keeps NUMBA_NUM_THREADS."""
    arguments = [*TWO_PROCESSES[1:], str(program)]
    return f"from torch.distributed.run import main; main({arguments!r})"

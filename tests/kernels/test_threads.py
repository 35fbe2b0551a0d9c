"""How many threads kernels run on, how they share work, and that PyTorch keeps its own number."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from fastmagn import AugMix, corrupt
from fastmagn_kernels import threads
from fastmagn_kernels.random import rng
from tests.helpers.processes import run

NAMES = ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE")


@pytest.fixture
def eight_cpus(monkeypatch, tmp_path):
    """A machine of eight CPUs on four cores, without limits; PyTorch has its own default, four threads."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(threads, "_TOPOLOGY", tmp_path / "cpu")
    for cpu in range(8):
        folder = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    for cached in (threads._cgroup_quota, threads._count_cores):
        cached.cache_clear()
    yield tmp_path / "cgroup"
    for cached in (threads._cgroup_quota, threads._count_cores):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("numba_threads", "torch_threads", "variables", "expected"),
    [
        (8, 4, {}, 8),  # nobody set anything
        (3, 4, {}, 3),
        (8, 2, {}, 2),  # torch.set_num_threads(2)
        (1, 2, {}, 1),
        (8, 4, {"OMP_NUM_THREADS": "4"}, 4),
        (8, 6, {"OMP_NUM_THREADS": "6,2"}, 6),
        (8, 4, {"OMP_NUM_THREADS": "many"}, 8),
        (8, 64, {"OMP_NUM_THREADS": "64"}, 8),
        (8, 4, {"LOCAL_WORLD_SIZE": "2"}, 4),
        (8, 1, {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, 1),  # a script of others: as PyTorch
        (8, 4, {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, 4),  # `join_world` has given PyTorch its share
        (1, 4, {"LOCAL_WORLD_SIZE": "2"}, 1),
        (8, 1, {"LOCAL_WORLD_SIZE": "16"}, 1),
    ],
)
def test_the_smallest_number_decides(numba_threads, torch_threads, variables, expected, eight_cpus, monkeypatch):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", numba_threads)
    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_threads)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert threads.num_threads() == expected


@pytest.mark.parametrize(
    ("files", "own", "expected"),
    [
        ({"cpu.max": "max 100000"}, "", 8),
        ({"cpu.max": "300000 100000"}, "", 3),
        ({"cpu.max": "150000 100000"}, "", 2),  # a part of a CPU counts as one
        ({"cpu.max": "1000 100000"}, "", 1),
        ({"jobs/cpu.max": "200000 100000", "jobs/7/cpu.max": "max 100000"}, "0::/jobs/7\n", 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/\n", 8),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, "3:memory:/m\n1:cpu,cpuacct:/x\n", 4),
        ({"cpu.max": "nonsense"}, "nonsense\n", 8),
    ],
)
def test_a_containers_limit_counts(files, own, expected, eight_cpus):
    for name, text in files.items():
        path = eight_cpus / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    threads._OWN_CGROUPS.write_text(own)
    assert threads.cpu_share() == threads.num_threads() == expected


def test_work_runs_on_as_many_threads_as_asked_and_on_none_that_come_too_late():
    meeting, names = threading.Barrier(3, timeout=60), []

    def meet() -> None:
        names.append(threading.current_thread().name)
        meeting.wait()

    threads.run_on_threads(meet, 3)  # would time out with fewer
    assert len(set(names)) == 3
    assert threading.current_thread().name in names


def test_an_error_on_any_thread_arrives_after_all_have_finished():
    meeting, finished = threading.Barrier(2, timeout=60), []

    def fail_elsewhere() -> None:
        meeting.wait()
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("there")
        finished.append(True)

    with pytest.raises(ValueError, match="there"):
        threads.run_on_threads(fail_elsewhere, 2)
    assert finished


def test_more_callers_than_threads_do_not_wait_for_each_other(monkeypatch):
    """A call within the pool's only thread finds no other one free, and does all of its work."""
    pool = ThreadPoolExecutor(1)
    monkeypatch.setattr(threads, "_pool", lambda: pool)
    monkeypatch.setattr(threads, "num_threads", lambda: 4)
    done = np.zeros((8, 16), int)

    def call(row: int) -> None:
        def work(chunk: slice) -> None:
            done[row, chunk] += 1

        threads.over_chunks(work, 16, 2)

    for future in [pool.submit(call, row) for row in range(8)]:
        future.result(timeout=60)
    pool.shutdown()
    assert (done == 1).all()


def test_where_no_thread_can_be_started_the_caller_does_all_and_no_memory_stays(monkeypatch):
    """As where the system allows no more threads: what was submitted stays in the pool's queue."""

    class NoThreads(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            raise RuntimeError("can't start new thread")

    pool, done = NoThreads(1), np.zeros(16, int)
    monkeypatch.setattr(threads, "_pool", lambda: pool)

    def work() -> None:
        done[:] += 1

    alive = weakref.ref(work)
    threads.run_on_threads(work, 4)
    del work
    gc.collect()
    assert (done == 1).all()
    assert alive() is None


@pytest.mark.process
def test_kernels_run_at_the_interpreters_exit(tmp_path):
    """Other threads, exit functions and finalisers may run when no thread can be started any more."""
    code = """
import atexit, threading, torch
from fastmagn import AugMix
images = torch.rand(20, 3, 16, 16)
views = AugMix()(images, indices=range(20), epoch=0)
def again():
    assert torch.equal(AugMix()(images, indices=range(20), epoch=0), views)
    print("equal", flush=True)
def at_the_end():
    threading.main_thread().join()
    again()
atexit.register(again)
threading.Thread(target=at_the_end).start()
"""
    finished = run(["-c", code], Path(tmp_path), OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2")
    assert finished.stdout == "equal\nequal\n"
    assert finished.stderr == ""


@pytest.mark.parametrize(("num_rows", "rows_per_chunk"), [(0, 3), (1, 3), (10, 3), (12, 3), (7, 100)])
def test_chunks_cover_all_rows_once(num_rows, rows_per_chunk, monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 3)
    rows = []
    threads.over_chunks(lambda chunk: rows.extend(range(chunk.start, chunk.stop)), num_rows, rows_per_chunk)
    assert sorted(rows) == list(range(num_rows))


def test_no_chunk_begins_after_an_error():
    begun = []

    def fail(chunk: slice) -> None:
        begun.append(chunk.start)
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        threads.over_chunks(fail, 100, 1)
    assert begun == [0]


def test_batches_of_draws_are_those_of_single_rows(monkeypatch):
    monkeypatch.setattr(threads, "num_threads", lambda: 3)
    monkeypatch.setattr(rng, "_CHUNK_DRAWS", 64)
    indices = np.arange(20, dtype=np.int64)
    for fill_batch in (rng.standard_normal_batch, rng.uniform_batch):
        together, alone = np.empty((20, 30), np.float32), np.empty((20, 30), np.float32)
        fill_batch(together, rng.STREAM_NOISE, 1, indices, 4, *rng.key_words(7))
        for row in range(20):
            fill_batch(alone[row : row + 1], rng.STREAM_NOISE, 1, indices[row : row + 1], 4, *rng.key_words(7))
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_pytorchs_number_of_threads_stays(num_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        AugMix()(torch.rand(20, 3, 16, 16))
        corrupt(np.zeros((300, 32, 32, 3), np.uint8), "gaussian_noise", 1)
        rng.uniform_batch(np.empty((20, 30), np.float32), 1, 0, np.arange(20), 0, *rng.key_words(0))
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.process
def test_no_kernel_starts_openmp(tmp_path):
    """OpenMP's threads are what a forked process cannot use."""
    code = """
import numba, numpy as np, torch
from numba.np.ufunc import parallel
from fastmagn import AugMix, corrupt
AugMix()(torch.rand(20, 3, 16, 16))
corrupt(np.zeros((300, 32, 32, 3), np.uint8), "gaussian_noise", 1)
assert not parallel._is_initialized
"""
    run(["-c", code], Path(tmp_path), OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2")

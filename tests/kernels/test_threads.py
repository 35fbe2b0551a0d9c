"""How kernels share their work among threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastmagn_kernels import threads


def test_two_threads_work_at_once_and_all_have_finished():
    both, finished = threading.Barrier(2), []

    def work() -> None:
        both.wait(timeout=60)
        finished.append(threading.get_ident())

    threads.run_on_threads(work, 2)
    assert len(set(finished)) == 2


def test_an_error_in_a_helping_thread_is_the_callers():
    both = threading.Barrier(2)

    def work() -> None:
        both.wait(timeout=60)
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("of the helper")

    with pytest.raises(ValueError, match="of the helper"):
        threads.run_on_threads(work, 2)


def test_more_callers_than_threads_do_not_wait_for_each_other(monkeypatch):
    """Each call does its own work, also within the pool's threads, which have no free thread left."""
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(threads, "_pool", lambda: pool)
        done = np.zeros((8, 16), int)

        def call(row: int) -> None:
            def work(chunk: slice) -> None:
                done[row, chunk] += 1

            threads.over_chunks(work, 16, 2)

        monkeypatch.setattr(threads, "num_threads", lambda: 4)
        for future in [pool.submit(call, row) for row in range(8)]:
            future.result(timeout=60)
    assert (done == 1).all()


def test_without_another_thread_the_caller_does_all(monkeypatch):
    """As where the system allows no more threads."""

    class NoThreads(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            raise RuntimeError("can't start new thread")

    pool, calls = NoThreads(1), []
    monkeypatch.setattr(threads, "_pool", lambda: pool)
    threads.run_on_threads(lambda: calls.append(1), 4)
    assert calls == [1]

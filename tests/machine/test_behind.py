"""Work on a thread of its own: the caller continues, and the result or the error reaches it."""

import threading

import pytest

from fastmagn.machine.behind import Behind

LIMIT_S = 30.0


def test_the_caller_continues_and_takes_the_result_once():
    may_end, behind = threading.Event(), Behind()
    behind.start(lambda: may_end.wait(LIMIT_S))
    assert behind.is_under_way()
    behind.wait(0.001)  # it is not waited for longer
    assert behind.is_under_way()
    may_end.set()
    assert behind.take() is True
    assert behind.take() is None
    assert not behind.is_under_way()


def test_an_error_reaches_who_takes_the_result():
    behind, error = Behind(), KeyError("a bug")

    def fail() -> None:
        raise error

    behind.start(fail)
    behind.wait()  # it does not raise
    with pytest.raises(KeyError) as caught:
        behind.take()
    assert caught.value is error
    behind.start(lambda: 7)
    assert behind.take() == 7


def test_where_no_thread_can_be_started_the_work_is_done_at_once(monkeypatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    behind, done_by = Behind(), []
    behind.start(lambda: done_by.append(threading.current_thread()))
    assert done_by == [threading.main_thread()]
    assert not behind.is_under_way()


def test_without_work_there_is_nothing_to_wait_for():
    behind = Behind()
    behind.wait()
    assert behind.take() is None

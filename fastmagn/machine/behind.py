"""Work that a thread does while the caller continues, one piece at a time."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

_left: list[tuple[Future[Any], int]] = []


@atexit.register
def _exit_beside_what_is_left() -> None:
    """End the process beside work that was left, without Python's own end.

    Python ends a thread that returns from the disk after that; in the middle of PyTorch's C++ that is an abort.
    """
    for pending, exit_status in _left:
        if not pending.done():
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(exit_status)


class Behind(Generic[Result]):
    """At most one piece of work, on a thread of its own.

    The thread is a daemon: a process that exits does not wait for it. It must have waited, or have left the work.
    """

    def __init__(self) -> None:
        self._pending: Future[Result] | None = None

    def start(self, work: Callable[[], Result]) -> None:
        """Begin the work; where no thread can be started, it is done at once. The work before must have been taken."""
        assert self._pending is None
        self._pending = future = Future[Result]()

        def do() -> None:
            try:
                future.set_result(work())
            except BaseException as error:  # for the caller, who asks for the result
                future.set_exception(error)

        try:
            threading.Thread(target=do, name="fastmagn-behind", daemon=True).start()
        except RuntimeError:
            do()

    def is_under_way(self) -> bool:
        """Whether there is work, and it has not ended."""
        return self._pending is not None and not self._pending.done()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the work has ended, however it ended; at most `timeout_s` seconds."""
        if self._pending is not None:
            wait([self._pending], timeout_s)

    def leave(self, patience_s: float, exit_status: int) -> None:
        """Wait for at most so long. If the process exits before the work has ended, it exits with this status."""
        self.wait(patience_s)
        if self._pending is not None and self.is_under_way():
            _left.append((self._pending, exit_status))

    def take(self) -> Result | None:
        """Wait for the work and return its result, once; None if there is no work. Raises what the work raised."""
        pending = self._pending
        if pending is None:
            return None
        wait([pending])  # apart from the result: an interruption leaves the work to be taken
        self._pending = None
        return pending.result()

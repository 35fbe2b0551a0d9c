"""Work that a thread does while the caller continues, one piece at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Behind(Generic[Result]):
    """At most one piece of work, on a thread of its own.

    The thread is a daemon: a process that exits does not wait for it, unless it has asked for the result.
    """

    def __init__(self) -> None:
        self._pending: Future[Result] | None = None

    def start(self, work: Callable[[], Result]) -> None:
        """Begin the work; where no thread can be started, it is done at once. The work before must have been taken."""
        assert self._pending is None
        self._pending = future = Future()

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

    def take(self) -> Result | None:
        """Wait for the work and return its result, once; None if there is no work. Raises what the work raised."""
        pending = self._pending
        if pending is None:
            return None
        wait([pending])  # apart from the result: an interruption leaves the work to be taken
        self._pending = None
        return pending.result()

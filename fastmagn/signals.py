"""Ctrl-C and SIGTERM: asked for between steps, so that a run ends with a whole checkpoint."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastmagn.runlog import console


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGINT or SIGTERM came; a second one interrupts at once.

    Python delivers signals to the main thread only: elsewhere nothing is caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        console.print("finishing the step, then saving; once more to leave at once")

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

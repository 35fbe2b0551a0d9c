"""Ctrl-C and SIGTERM: between steps while training, so that a run ends with a whole checkpoint; else at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fastmagn.errors import Interrupted
from fastmagn.machine.console import console
from fastmagn.machine.torchrun import world_size

BOTH = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Yields a function that says which of SIGINT and SIGTERM came, 0 for none; a second SIGINT leaves at once.

    A second SIGTERM does not: SLURM and torchrun between them send it twice.
    """
    received: list[int] = []

    def receive(number: int) -> None:
        if received and number == signal.SIGINT:
            raise Interrupted(number)
        if not received:
            _tell("finishing the step, then saving; Ctrl-C leaves at once\n")
        received.append(number)

    with _handled_by(receive):
        yield lambda: received[0] if received else 0


@contextmanager
def interrupted_at_once() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise Interrupted.

    One of torchrun's processes leaves SIGTERM to the system: it may be waiting for another one inside PyTorch, where
    Python hears of no signal, and torchrun would wait for it.
    """

    def receive(number: int) -> None:
        raise Interrupted(number)

    with _handled_by(receive, (signal.SIGINT,) if world_size() > 1 else BOTH):
        yield


def _tell(text: str) -> None:
    """To stderr past its buffer, which the signal may have come in the middle of writing."""
    if not console.quiet:
        with suppress(OSError):
            os.write(2, text.encode())


@contextmanager
def _handled_by(receive: Callable[[int], None], numbers: tuple[signal.Signals, ...] = BOTH) -> Iterator[None]:
    """Python delivers signals to the main thread only: elsewhere nothing is caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: object) -> None:
        if os.getpid() == owner:
            receive(number)
        elif number == signal.SIGTERM:  # a forked worker is told to end; at Ctrl-C its parent decides
            os._exit(128 + number)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

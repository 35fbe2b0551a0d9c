"""Ctrl-C, SIGTERM and SIGHUP: in training they act between steps, so that a run saves a checkpoint; else at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fastmagn.errors import InputError, Interrupted
from fastmagn.machine.console import console
from fastmagn.machine.torchrun import world_size

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal is closed


@contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Yields a function that returns which of `ALL` arrived first, 0 for none. A second SIGINT exits at once.

    A second SIGTERM does not, since SLURM and torchrun together send it twice.
    """
    received: list[int] = []

    def receive(number: int) -> None:
        if received and number == signal.SIGINT:
            raise Interrupted(number)
        if not received:
            _tell("finishing the step, then saving; press Ctrl-C again to exit at once\n")
        received.append(number)

    with handled_by(receive):
        yield lambda: received[0] if received else 0


@contextmanager
def interrupted_at_once() -> Iterator[None]:
    """Inside this context SIGINT, SIGTERM and SIGHUP raise Interrupted.

    Compiled code in which a signal arrives may raise another exception in its place, as numpy's `tofile` does a
    TypeError: that is an interruption too.

    Under torchrun, all but SIGINT are left to the system: the process may be waiting for another one inside PyTorch,
    where Python handles no signals, and torchrun would wait for it.
    """

    received: list[int] = []

    def receive(number: int) -> None:
        received.append(number)
        raise Interrupted(number)

    with handled_by(receive, (signal.SIGINT,) if world_size() > 1 else ALL):
        try:
            yield
        except InputError:  # what became of the work
            raise
        except Exception as error:
            if received:
                raise Interrupted(received[0]) from error
            raise


def _is_hangup_ignored() -> bool:
    """Whether this process was started to outlive its terminal, as nohup does."""
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _tell(text: str) -> None:
    """Write to stderr past its buffer, since the signal may have interrupted a write to it."""
    if not console.quiet:
        with suppress(OSError):
            os.write(2, text.encode())


@contextmanager
def handled_by(receive: Callable[[int], None], numbers: tuple[signal.Signals, ...] = ALL) -> Iterator[None]:
    """Handle the signals by `receive`; under nohup, SIGHUP stays ignored.

    Python delivers signals to the main thread only: elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: object) -> None:
        if os.getpid() == owner:
            receive(number)
        elif number == signal.SIGTERM:  # a forked worker exits; of the others, sent to all, the parent decides
            os._exit(128 + number)

    numbers = tuple(number for number in numbers if number != signal.SIGHUP or not _is_hangup_ignored())
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

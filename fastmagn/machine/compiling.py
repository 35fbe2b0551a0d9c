"""What is said while kernels are compiled: the first run on a machine waits for it, and later ones load them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

COMPILING = "compiling kernels (first time, up to a minute)"


@contextmanager
def told_of_compiling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` once, when the first kernel within the block is compiled. One that is loaded from disk is none."""
    from numba.core import event  # here, as it takes a second to import

    class _First(event.Listener):
        told = False

        def on_start(self, _: event.Event) -> None:
            if not self.told:
                self.told = True
                tell()

        def on_end(self, _: event.Event) -> None:
            pass

    with event.install_listener("numba:compile", _First()):
        yield

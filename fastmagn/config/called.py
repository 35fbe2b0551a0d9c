"""How the user calls the commands, as help texts and messages repeat it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_before_verb: ContextVar[str] = ContextVar("before_verb", default="python -m fastmagn.")


@contextmanager
def called_as(program: str) -> Iterator[None]:
    """Within this context the commands are called `program VERB`, such as `fastmagn train`."""
    token = _before_verb.set(f"{program} ")
    try:
        yield
    finally:
        _before_verb.reset(token)


def command(verb: str) -> str:
    """A command as the user calls it: `python -m fastmagn.VERB`, or `fastmagn VERB` if that is how this one began."""
    return f"{_before_verb.get()}{verb}"

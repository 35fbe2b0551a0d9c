"""PyTorch's own operations in processes that were forked by hand."""

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def torch_on_one_thread_in_forks(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The same function, which in a forked process runs PyTorch's CPU operations on one thread.

    The parent's OpenMP threads are not there, and an operation that would wait for them never returns. A DataLoader's
    worker has one thread by itself. PyTorch's setting is then as it was.
    """

    @wraps(function)
    def on_one_thread(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        if not _forked:
            return function(*arguments, **named)
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*arguments, **named)
        finally:
            torch.set_num_threads(num_threads)

    return on_one_thread

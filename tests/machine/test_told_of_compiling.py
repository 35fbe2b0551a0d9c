"""The line that explains the wait for compiled kernels: said where one is compiled, and once."""

import numba
import pytest

from fastmagn.machine.compiling import COMPILING, told_of_compiling
from fastmagn.machine.console import console, progress_bar


@numba.njit
def _inner(number):
    return number + 1


@numba.njit
def _outer(number):
    return _inner(number) * 2


def test_it_is_said_once_and_only_while_something_is_compiled():
    told = []
    with told_of_compiling(lambda: told.append(1)):
        assert told == []
        assert _outer(1) == 4  # two functions
        assert told == [1]
        assert _outer(2.0) == 6.0  # another type
    assert told == [1]
    with told_of_compiling(lambda: told.append(2)):
        assert _outer(3) == 8  # it is there
    assert told == [1]
    assert _outer(1j) == 2 + 2j  # after the block
    assert told == [1]


@pytest.mark.parametrize(("shown", "at_terminal"), [(True, True), (False, True), (True, False)])
def test_a_progress_bar_says_it_too_where_it_is_shown(shown, at_terminal, monkeypatch, capsys):
    monkeypatch.setattr(console, "_force_terminal", at_terminal)
    monkeypatch.setenv("TERM", "xterm")

    @numba.njit
    def fresh(number):
        return number - 1

    with progress_bar(shown) as bar:
        task = bar.add_task("work", total=1, status="")
        assert fresh(1) == 0
        bar.update(task, advance=1, status="done")
    output = capsys.readouterr().out
    assert (COMPILING in output) == (shown and at_terminal)
    assert at_terminal or output == ""

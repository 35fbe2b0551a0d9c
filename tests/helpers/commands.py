"""Commands in the tests' own process: a new interpreter takes seconds to import PyTorch."""

import runpy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest


class Shown(NamedTuple):
    """What a command wrote to its standard output and error."""

    stdout: str
    stderr: str


def call(command: Sequence[str | Path], capsys: pytest.CaptureFixture[str], *, expect: int = 0) -> Shown:
    """Do what `python -m` does with a module and its arguments; the exit status is `expect`."""
    module, *arguments = map(str, command)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)  # it may have been imported
        patched.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as left:
            runpy.run_module(module, run_name="__main__")
    shown = Shown(*capsys.readouterr())
    assert (left.value.code or 0) == expect, (command, shown)
    return shown

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
    """Do what Python does with a module (`-m`) or a script, and arguments; the exit status is `expect`."""
    name, *arguments = map(str, command)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)  # it may have been imported
        patched.setattr(sys, "argv", [name, *arguments])
        status = _status(name)
    shown = Shown(*capsys.readouterr())
    assert status == expect, (command, shown)
    return shown


def _status(name: str) -> int:
    try:
        if name.endswith(".py"):
            runpy.run_path(name, run_name="__main__")
        else:
            runpy.run_module(name, run_name="__main__")
    except SystemExit as left:
        return left.code or 0
    return 0

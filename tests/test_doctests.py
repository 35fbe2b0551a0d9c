"""The examples in docstrings do what they show; the public names are there, whatever was imported before."""

import doctest
import importlib

import pytest

import fastmagn
from tests.helpers.processes import run


@pytest.mark.parametrize(
    "module", ["fastmagn.augment.augmix", "fastmagn.losses.magn", "fastmagn.evaluation.robustness"]
)
def test_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_public_names_are_there():
    for name in fastmagn.__all__:
        assert getattr(fastmagn, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'fastmagn' has no attribute 'AugMax'"):
        _ = fastmagn.AugMax


FRESH = """
import os, sys
import numba, torch  # once for all; nothing of fastmagn
for program in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        exec(program, {"__name__": "__main__"})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, program
"""


@pytest.mark.process
def test_corrupt_is_the_function_whatever_is_imported(tmp_path):
    """Each in a process that has imported nothing of fastmagn."""
    orders = [
        "from fastmagn import corrupt",
        "import fastmagn.corrupt; from fastmagn import corrupt",
        "from fastmagn import corrupt; import fastmagn.corrupt; corrupt = fastmagn.corrupt",
        "import fastmagn.evaluate; from fastmagn import corrupt",
        "import importlib; importlib.import_module('fastmagn.corrupt'); from fastmagn import corrupt",
    ]
    check = "; from fastmagn.corruptions import corrupt as it; assert corrupt is it, corrupt"
    run(["-c", FRESH, *(order + check for order in orders)], tmp_path)


def test_names_are_listed_before_they_are_imported():
    assert set(fastmagn.__all__) <= set(dir(fastmagn))

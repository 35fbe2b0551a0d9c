"""The examples in docstrings do what they show; the public names are there, whatever was imported before."""

import doctest
import importlib
import re
import shutil

import pytest

import fastmagn
from tests.helpers.processes import ROOT, run

EXAMPLES = [path for path in sorted((ROOT / "fastmagn").rglob("*.py")) if "\n        >>> " in path.read_text()]


@pytest.fixture
def run_of_the_examples(tmp_path, monkeypatch, undisturbed_default) -> None:
    """The working directory has the run of the first command, shortened."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(undisturbed_default, tmp_path / "runs" / "digits-magn_augmix-resnet_small-seed0")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples(path, run_of_the_examples):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_example_is_in_a_section_of_its_own():
    """Elsewhere in a docstring, the documentation shows it as prose."""
    for path in (ROOT / "fastmagn").rglob("*.py"):
        parts = re.split(r'"""', path.read_text())[1::2]
        for docstring in (part for part in parts if ">>> " in part):
            assert re.search(r"^ +Examples:\n +>>> ", docstring, re.MULTILINE), path
            assert not re.search(r"^ {0,4}>>> ", docstring, re.MULTILINE), path


def test_public_names_are_there():
    for name in fastmagn.__all__:
        assert getattr(fastmagn, name).__name__ == name
        assert ">>> " in getattr(fastmagn, name).__doc__
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

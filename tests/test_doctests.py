"""The examples in docstrings do what they show; the public names are there, whatever was imported before."""

import doctest
import importlib
import subprocess
import sys

import pytest

import fastmagn


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


@pytest.mark.parametrize(
    "imports",
    [
        "from fastmagn import corrupt",
        "import fastmagn.corrupt; from fastmagn import corrupt",
        "from fastmagn import corrupt; import fastmagn.corrupt; corrupt = fastmagn.corrupt",
        "import fastmagn.evaluate; from fastmagn import corrupt",
        "import importlib; importlib.import_module('fastmagn.corrupt'); from fastmagn import corrupt",
    ],
)
def test_corrupt_is_the_function_whatever_is_imported(imports):
    program = f"{imports}; from fastmagn.corruptions import corrupt as it; assert corrupt is it, corrupt"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_names_are_listed_before_they_are_imported():
    assert set(fastmagn.__all__) <= set(dir(fastmagn))

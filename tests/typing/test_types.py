"""The annotations hold together: those of the package, of the benchmarks, and of a program with all public names."""

import ast
import importlib.util
import subprocess
import sys

import pytest

import fastmagn
from tests.helpers.processes import ROOT, command_environment

USER_CODE = ROOT / "tests" / "typing" / "user_code.py"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed (the extra types)")
def test_the_package_and_the_benchmarks_are_typed(tmp_path):
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=command_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_users_program_has_every_public_name():
    tree = ast.parse(USER_CODE.read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "fastmagn"
        for alias in node.names
    }
    assert names == set(fastmagn.__all__)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "fastmagn" / "py.typed").read_bytes() == b""

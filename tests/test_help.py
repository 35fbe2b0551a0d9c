"""--help answers without PyTorch and Numba, which take seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from fastmagn.__main__ import VERBS

ROOT = Path(__file__).parent.parent


@pytest.mark.process
@pytest.mark.parametrize("command", sorted(VERBS))
def test_help_imports_neither_torch_nor_numba(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"fastmagn.{command}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage: " in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in imported
    assert imported.isdisjoint({"torch", "numba"})

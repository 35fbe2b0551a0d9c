"""--help answers without PyTorch and Numba, which take seconds to import."""

import pytest

from fastmagn.__main__ import VERBS
from tests.helpers.processes import run


@pytest.mark.process
@pytest.mark.parametrize("command", sorted(VERBS))
def test_help_imports_neither_torch_nor_numba(command, tmp_path):
    done = run(["-X", "importtime", "-m", f"fastmagn.{command}", "--help"], tmp_path)
    assert "usage: " in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in imported
    assert imported.isdisjoint({"torch", "numba"})

"""Every test that only a GPU can run is among those that the first call to a GPU machine runs."""

import re
from pathlib import Path

from tests.helpers.processes import ROOT

SCRIPT = (ROOT / "benchmarks" / "gpu" / "first_call.sh").read_text()
NEEDS_GPU = re.compile(r"""reason=["'](?:needs a CUDA device|no GPU)["']""")
LISTED = re.search(r"^tests=\(([^)]+)\)", SCRIPT, re.MULTILINE)[1].split()


def of_gpus() -> dict[str, int]:
    """The files with such tests, and how many marks skip them."""
    files = {path: len(NEEDS_GPU.findall(path.read_text())) for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    return {str(path.relative_to(ROOT)): marks for path, marks in files.items() if marks and path != Path(__file__)}


def test_every_path_of_the_script_exists():
    for listed in LISTED:
        path, _, test = listed.partition("::")
        assert (ROOT / path).exists(), listed
        assert not test or f"\ndef {test}(" in (ROOT / path).read_text(), listed


def test_the_script_runs_every_file_with_tests_for_a_gpu():
    found = of_gpus()
    assert len(found) >= 7
    for file, marks in found.items():
        places = {file, *map(str, Path(file).parents)}
        chosen = [listed for listed in LISTED if listed.startswith(f"{file}::")]
        assert places & set(LISTED) or len(chosen) == marks, file

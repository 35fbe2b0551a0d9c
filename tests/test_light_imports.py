"""The tables of names, and what the commands' parsers need, are there without torch, torchvision or numba."""

from pathlib import Path

import pytest

from tests.helpers.processes import run

pytestmark = pytest.mark.process

HEAVY = {"torch", "torchvision", "numba"}


def imported(program: str, folder: Path) -> set[str]:
    """The top-level names of all modules that a new process has imported after `program`."""
    program += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    return set(run(["-c", program], folder).stdout.split())


@pytest.mark.parametrize(
    "program",
    [
        "import fastmagn.config.command_line, fastmagn.config.text, fastmagn.errors",
        "from fastmagn.augment.engines import BACKENDS",
        "from fastmagn.corruptions import CORRUPTION_SETS, CORRUPTIONS, MIN_SIDE_PX, SEVERITIES",
        "from fastmagn.data import DATASETS",
        "from fastmagn.models import LIBRARIES, MODELS",
    ],
)
def test_tables_of_names_need_nothing_heavy(program, tmp_path):
    assert not imported(program, tmp_path) & HEAVY


def test_images_are_loaded_without_torch(tmp_path):
    assert "torch" not in imported("from fastmagn.data import load_images; load_images('digits', '.')", tmp_path)


def test_a_network_of_our_own_needs_no_torchvision(tmp_path):
    program = "from fastmagn.models import build_model"
    program += "; build_model('wideresnet40_2', num_classes=3, mean=(0, 0, 0), std=(1, 1, 1))"
    modules = imported(program, tmp_path)
    assert "torch" in modules
    assert "torchvision" not in modules

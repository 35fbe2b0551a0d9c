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


def modules_of(words: list[str], folder: Path) -> set[str]:
    """The whole names of all modules that a new process imports."""
    lines = run(["-X", "importtime", *words], folder).stderr.splitlines()
    return {line.rsplit("|", 1)[1].strip() for line in lines if line.startswith("import time:")}


# What takes long to import, and is used by some trainings and evaluations only.
SELDOM_USED = (
    "torchvision",
    "torch._dynamo",
    "sklearn",
    "matplotlib",
    "scipy.special",
    "scipy.optimize",
    "scipy.stats",
)


@pytest.mark.parametrize("words", [["-c", "import fastmagn.train"], ["-m", "fastmagn", "--help"]])
def test_a_command_answers_without_what_takes_long_to_import(words, tmp_path):
    modules = modules_of(words, tmp_path)
    assert "fastmagn.registry" in modules
    assert modules.isdisjoint({*SELDOM_USED, *HEAVY, "numpy"})


@pytest.mark.parametrize("module", ["fastmagn.training.run", "fastmagn.evaluation.run"])
def test_a_training_imports_only_what_every_training_uses(module, tmp_path):
    modules = modules_of(["-c", f"import {module}"], tmp_path)
    assert "torch" in modules
    assert modules.isdisjoint(SELDOM_USED)


@pytest.mark.process
def test_neither_a_step_nor_an_evaluation_imports_what_it_does_not_use(tmp_path):
    """Without `torch.compile`, on the digits. PyTorch's optimisers import torch._dynamo; corruptions, scipy.special."""
    few = ["--eval.num_images", "2", "--eval.corruption_set", "c15", "--device", "cpu"]
    train = ["--method", "standard", "--train.max_steps", "1", "--train.batch_size", "64", *few]
    modules = modules_of(["-m", "fastmagn.train", *train, "--run_dir", "run"], tmp_path)
    unused = {*SELDOM_USED, "pandas", "torch._inductor.cudagraph_trees", "torch._inductor.compile_fx"} - {
        "scipy.special"
    }
    assert "fastmagn.training.step" in modules
    assert modules & unused == {"torch._dynamo"}
    modules = modules_of(["-m", "fastmagn.evaluate", "--run_dir", "run", *few], tmp_path)
    assert "fastmagn.evaluation.measure" in modules
    assert modules.isdisjoint({*unused, "torch._inductor"})


def test_images_are_loaded_without_torch(tmp_path):
    assert "torch" not in imported("from fastmagn.data import load_images; load_images('digits', '.')", tmp_path)


@pytest.mark.parametrize("name", ["wideresnet40_2", "resnet_small"])
def test_a_network_of_our_own_needs_no_torchvision(name, tmp_path):
    program = "from fastmagn.models import build_model"
    program += f"; build_model('{name}', num_classes=3, mean=(0, 0, 0), std=(1, 1, 1))"
    modules = imported(program, tmp_path)
    assert "torch" in modules
    assert "torchvision" not in modules

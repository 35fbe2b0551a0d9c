"""The wheel, built and installed outside the repository, has the commands, configurations and files of the checkout."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastmagn.__main__ import VERBS
from fastmagn.corruptions import available_corruptions
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set
from tests.helpers.processes import ROOT, run

COMMANDS = sorted(VERBS)
HELP = """
import contextlib, io, runpy, sys
for name in sys.argv[1:]:
    sys.argv[1:], shown = ["--help"], io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        runpy.run_module(f"fastmagn.{name}", run_name="__main__")
    assert f"python -m fastmagn.{name}" in shown.getvalue(), name
"""


pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, cwd=folder)
    return target


def run_installed(installed: Path, folder: Path, *words: str) -> str:
    return run(words, folder, PYTHONPATH=str(installed)).stdout


def test_everything_that_is_no_code_is_in_it(installed):
    places = {"fastmagn": "fastmagn", "configs": "fastmagn/configs", "kernels/fastmagn_kernels": "fastmagn_kernels"}
    for folder, place in ((ROOT / name, place) for name, place in places.items()):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = installed / place / path.relative_to(folder)
                assert copy.read_bytes() == path.read_bytes()
    assert sorted(path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")) == [
        *("bin", "fastmagn", "fastmagn_kernels")
    ]


def test_every_command_explains_itself(installed, tmp_path):
    assert {"train", "evaluate", "corrupt", "report", "export"} <= set(COMMANDS)
    run_installed(installed, tmp_path, "-c", HELP, *COMMANDS)


@pytest.mark.slow
def test_a_shipped_configuration_is_trained_reported_exported_and_loaded(installed, tmp_path):
    """With Pillow's views and a made -C set: compiling all kernels anew takes more than a minute."""
    if "frost" not in available_corruptions():
        pytest.skip("the frost pictures are not installed")
    made = CorruptConfig(out=tmp_path / "set", dataset="digits", num_images=4, corruption_set="c15")
    make_corrupted_set(made)
    short = ["--augment.backend", "pil", "--train.max_steps", "2", "--train.batch_size", "8", "--device", "cpu"]
    short += ["--eval.corrupted_dir", "set", "--eval.corruption_set", "c15", "--eval.num_images", "4"]
    train = ["fastmagn.train", "--config", "configs/digits_quickstart.yaml", "--run_dir", "run", *short]
    assert "clean accuracy" in run_installed(installed, tmp_path, *train, "--method", "standard")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["environment"]["commit"] is None
    run_installed(installed, tmp_path, "fastmagn.report", "run", "--out", "report")
    assert (tmp_path / "report" / "report.md").exists()
    out = ["--format", "safetensors", "--out", "model.safetensors"]
    run_installed(installed, tmp_path, "fastmagn.export", "--run", "run", *out)
    program = "import fastmagn; print(fastmagn.__file__, fastmagn.load('model.safetensors').class_names)"
    shown = run_installed(installed, tmp_path, "-c", program)
    assert shown.startswith(str(installed))
    assert "('0', '1'" in shown


def test_a_configuration_with_a_base_is_found_by_name(installed, tmp_path):
    arguments = ["fastmagn.train", "--config", "paper/table1/magn", "--print_config"]
    shown = run_installed(installed, tmp_path, *arguments)
    assert "method: magn\n" in shown
    assert "epochs: 150" in shown, "the base is not read"

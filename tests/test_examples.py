"""Every file of examples/ runs as its first lines say, shortened, and does what it is there for."""

import importlib.util
import re
from collections.abc import Callable

import pytest
import timm
import torch
from safetensors.torch import save_file

from fastmagn.corruptions import available_corruptions
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set
from tests.helpers.commands import call
from tests.helpers.processes import ROOT

EXAMPLES = ("evaluate_timm", "lightning_module", "plain_pytorch")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """What an example prints, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *arguments: call([ROOT / "examples" / f"{name}.py", *arguments], capsys).stdout


def clean_accuracy(shown: str) -> float:
    return float(re.search(r"clean accuracy ([\d.]+)%", shown)[1])


def test_every_example_is_named_and_run_here():
    others = {"own_code"}  # tests/test_extend.py
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*EXAMPLES, *others}
    text = (ROOT / "examples" / "README.md").read_text()
    assert all(f"`{name}.py`" in text for name in EXAMPLES)


def test_the_plain_loop_learns(run):
    shown = run("plain_pytorch", "--epochs", "2", "--num_test_images", "100")
    assert clean_accuracy(shown) > 50, "ten classes by chance are 10"


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="Lightning is not installed (extra examples)")
def test_the_lightning_module_learns(run):
    shown = run("lightning_module", "--epochs", "2", "--num_test_images", "100")
    assert clean_accuracy(shown) > 50


def test_a_timm_network_on_a_made_set(run, tmp_path):
    """With weights from both kinds of file: the numbers are the same."""
    if "frost" not in available_corruptions():
        pytest.skip("the frost pictures are not installed")
    make_corrupted_set(CorruptConfig(out=tmp_path / "set", dataset="digits", num_images=20, corruption_set="c15"))
    state = timm.create_model("test_resnet", num_classes=10).state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pt")
    arguments = ["--model", "test_resnet", "--corrupted", "set", "--num_images", "10", "--checkpoint"]
    first, second = (run("evaluate_timm", *arguments, f"weights.{kind}") for kind in ("safetensors", "pt"))
    assert first == second
    assert re.search(r"mCA c15 [\d.]+%", first)


@pytest.mark.slow
@pytest.mark.data
def test_a_timm_network_on_cifar(run, data_dir):
    arguments = ["--model", "test_vit", "--side_px", "160", "--data_dir", str(data_dir), "--num_images", "4"]
    assert "RMS calibration error, corrupt" in run("evaluate_timm", *arguments)

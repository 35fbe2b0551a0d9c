"""Runs and exported files of an earlier version (README.md beside this) still resume, evaluate, report and load."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import fastmagn
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluation.logits import read_logits
from fastmagn.evaluation.run import evaluate_run
from fastmagn.evaluation.trained import load_run
from fastmagn.exporting.card import model_card
from fastmagn.exporting.config import ExportConfig
from fastmagn.reporting.runs import read_runs
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import LOGITS, RESULTS, last_checkpoint
from fastmagn.runs.reading import read_config
from fastmagn.train import train
from tests.helpers.small_runs import knows_the_network, rows, without_times

HERE = Path(__file__).parent
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # another CPU or number of threads adds in another order


@pytest.fixture(autouse=True)
def network(monkeypatch):
    knows_the_network(monkeypatch)


@pytest.fixture
def old_run(request, tmp_path) -> Path:
    return Path(shutil.copytree(HERE / request.param, tmp_path / request.param))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("old_run", ["stopped"], indirect=True)
def test_a_stopped_run_resumes(old_run):
    """Its last two steps end where the undisturbed run of that version ended."""
    train(read_config(old_run, ["--run_dir", str(old_run), "--train.max_steps", "0"]))
    cpu = torch.device("cpu")
    ours, theirs = (read_checkpoint(last_checkpoint(folder), cpu) for folder in (old_run, HERE / "whole"))
    assert ours["step"] == theirs["step"] == 8
    for name, value in theirs["model"].items():
        np.testing.assert_allclose(ours["model"][name].numpy(), value.numpy(), err_msg=name, **TOLERANCE)
    for row, old in zip(without_times(rows(old_run)), without_times(rows(HERE / "whole")), strict=True):
        assert row == pytest.approx(old, rel=1e-4)


@pytest.mark.parametrize("old_run", ["stopped"], indirect=True)
def test_a_field_that_is_newer_than_a_run_has_its_default_there(old_run):
    """And another value is refused, by the field's name."""
    assert "clip_norm" not in (old_run / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"^optim\.clip_norm: got 1\.0; expected 0\.0, with which .* was made\."):
        train(read_config(old_run, ["--run_dir", str(old_run), "--train.max_steps", "0", "--optim.clip_norm", "1"]))


@pytest.mark.parametrize("old_run", ["whole"], indirect=True)
def test_a_finished_run_is_measured_again(old_run):
    """The same logits, cell by cell, and so the same results."""
    _, stored = read_logits(HERE / "whole" / LOGITS)
    results = evaluate_run(old_run, read_config(old_run, ["--eval.save_logits", "true"]))
    _, measured = read_logits(old_run / LOGITS)
    assert measured.keys() == stored.keys()
    assert len(stored) == 16
    for name, logits in stored.items():
        np.testing.assert_allclose(measured[name], logits, err_msg=name, **TOLERANCE)
    assert results["mca"] == json.loads((HERE / "whole" / RESULTS).read_text())["mca"]


def test_old_results_are_reported():
    runs, warnings = read_runs([HERE / "whole"])
    assert not warnings
    assert (runs[0].method, runs[0].data, runs[0].network, len(runs[0].epochs)) == ("augmix", "digits", "smooth", 2)


@pytest.mark.parametrize("name", ["whole", "smooth.safetensors", "smooth.onnx"])
def test_old_models_load(name):
    """A run folder and both exported formats give the stored logits' probabilities."""
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    images = load_images("digits", Path("unused")).test_images_u8[:20]
    _, stored = read_logits(HERE / "whole" / LOGITS)
    labels, probabilities = fastmagn.load(HERE / name).predict(images)
    expected = softmax(stored["clean"][0])
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert labels.tolist() == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("old_run", ["whole"], indirect=True)
def test_the_card_names_the_version_that_trained(old_run, monkeypatch):
    """Results that do not say it leave the version that exports."""
    monkeypatch.setattr("fastmagn.exporting.info.__version__", "9.8.7")
    trained = load_run(old_run)
    config = ExportConfig(run=old_run, format="safetensors", out=Path("a.safetensors"))
    assert "on `digits` and measured with fastmagn 0.1.0; weights" in model_card(trained, "a.safetensors", config, None)
    for environment in ({}, {"fastmagn": "1\n# [me](http://a)"}, {"fastmagn": 3}):
        other = dataclasses.replace(trained, results=trained.results | {"environment": environment})
        card = model_card(other, "a.safetensors", config, None)
        assert "on `digits` and exported with fastmagn 9.8.7; weights" in card

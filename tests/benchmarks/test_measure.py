"""What the benchmarks share: each result names the device that did the work."""

import json

import pytest
import torch

from benchmarks import evaluate
from benchmarks.measure import device_of_runs, mean_sd, mean_sd_text, write_result

GPU = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def gpu(monkeypatch) -> torch.device:
    """A GPU that has a name, and nothing else."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: GPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)
    return torch.device("cuda")


def test_a_result_names_the_gpu(gpu, tmp_path):
    write_result(tmp_path / "result.json", "train", {}, {}, gpu)
    assert json.loads((tmp_path / "result.json").read_text())["environment"]["device"] == GPU


def test_an_evaluation_on_a_gpu_says_so(gpu, tmp_path):
    settings = {"model": "resnet18", "num_cells": 96, "num_images": 10, "device": "cuda"}
    evaluate._report([{"evaluate": evaluate.Turn(1.1, 0.9)}], {}, settings, gpu, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text())["environment"]["device"] == GPU


def test_runs_are_on_the_device_that_their_arguments_name(gpu):
    assert device_of_runs([]).type == "cuda"
    assert device_of_runs(["--device", "cpu"]).type == "cpu"
    assert device_of_runs(["--device", "cpu"], ["--device", "auto"]).type == "cuda"


def test_runs_are_on_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of_runs([]).type == "cpu"


def test_one_run_has_no_deviation():
    assert mean_sd_text(mean_sd([0.5, 0.7]), 2, 100, 1) == "60.0 ± 14.1"
    assert mean_sd_text(mean_sd([0.5]), 1, 100, 1) == "50.0"
    assert mean_sd_text(mean_sd([0.5, 0.5]), 2, 100, 0) == "50 ± 0"

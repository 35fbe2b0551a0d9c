"""What describes the machine is never an error: whatever cannot be found out is null."""

import json
import platform
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

import fastmagn
from fastmagn.machine.environment import environment
from fastmagn.runs.paths import RESULTS
from fastmagn.training.run import train
from tests.helpers.small_runs import knows_the_network, results, small

CPU = torch.device("cpu")


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


def test_an_environment_names_the_machine():
    found = environment(CPU)
    assert found["fastmagn"] == fastmagn.__version__
    assert found["torch"] == torch.__version__
    assert found["numpy"] == metadata.version("numpy")
    assert found["device"] == "cpu"
    assert None not in [value for name, value in found.items() if name != "commit"]


@pytest.mark.parametrize(
    ("owner", "name", "error", "unknown"),
    [
        (metadata, "version", metadata.PackageNotFoundError("numpy"), "numpy"),
        (subprocess, "run", FileNotFoundError(2, "No such file or directory", "git"), "commit"),
        (subprocess, "run", subprocess.CalledProcessError(128, "git"), "commit"),
        (subprocess, "run", subprocess.TimeoutExpired("git", 20), "commit"),
        (subprocess, "run", UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "commit"),
        (platform, "platform", OSError(5, "Input/output error"), "platform"),
        (torch.cuda, "get_device_name", RuntimeError("CUDA error: an illegal memory access"), "device"),
        (Path, "read_text", UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "cpu"),
    ],
)
def test_what_cannot_be_found_out_is_null_and_the_rest_is_there(owner, name, error, unknown, monkeypatch):
    monkeypatch.setattr(owner, name, failing(error))
    found = environment(torch.device("cuda") if owner is torch.cuda else CPU)
    assert found[unknown] is None
    assert found["python"] == platform.python_version()
    json.dumps(found, allow_nan=False)


def test_a_run_of_a_checkout_that_is_not_installed_has_its_results(tmp_path, monkeypatch):
    """Nothing knows a package's version, there is no git, and the processor has no name."""
    knows_the_network(monkeypatch)
    monkeypatch.setattr(metadata, "version", failing(metadata.PackageNotFoundError("fastmagn")))
    monkeypatch.setattr(subprocess, "run", failing(FileNotFoundError(2, "No such file or directory", "git")))
    train(small(tmp_path / "run", "--train.max_steps", "1"))
    assert (tmp_path / "run" / RESULTS).exists()
    described = results(tmp_path / "run")["environment"]
    assert described["fastmagn"] == fastmagn.__version__
    assert described["scipy"] is None

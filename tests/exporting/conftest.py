"""Fixtures: a run folder and images."""

from pathlib import Path

import numpy as np
import pytest

from fastmagn.export import main
from tests.helpers.run_folders import make_run


@pytest.fixture(scope="session")
def images_u8() -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "magn"
    make_run(folder, "--method", "magn")
    return folder


@pytest.fixture(scope="session")
def onnx_u8(run_dir, tmp_path_factory) -> Path:
    """That run, exported."""
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert main(["--run", str(run_dir), "--format", "onnx", "--out", str(out)]) == 0
    return out

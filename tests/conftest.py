"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fastmagn", deadline=None)  # no test asserts a time: the first example may compile a kernel
settings.load_profile("fastmagn")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that holds the real cifar-10-batches-py and cifar-100-python; skips where there is none."""
    folder = os.environ.get("FASTMAGN_DATA")
    if not folder:
        pytest.skip("FASTMAGN_DATA is not set (the folder that holds cifar-10-batches-py and cifar-100-python)")
    return Path(folder)

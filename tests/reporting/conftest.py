"""Fixtures of the report's tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_folders import write_run


@pytest.fixture
def fake_run(tmp_path) -> Callable[..., Path]:
    """fake_run(name, means, ...) writes the folder `name` of a finished run and returns it, see `write_run`."""

    def make(name: str, means: dict[str, float] | float = 0.8, **options: Any) -> Path:
        return write_run(tmp_path / name, means, **options)

    return make

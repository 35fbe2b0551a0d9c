"""Which of a test's parameters run by default, and which in the slow tier (CONTRIBUTING.md) only."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values: Any) -> list[Any]:
    """Each of these parameters, for the slow tier."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def slow_but(values: Iterable[Any], *kept: Any) -> list[Any]:
    """All parameters in their order; all but `kept` are for the slow tier."""
    values = list(values)
    assert all(value in values for value in kept)
    return [value if value in kept else pytest.param(value, marks=pytest.mark.slow) for value in values]

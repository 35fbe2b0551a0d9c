"""Fixtures of the tests of kernels."""

from tests.augment.conftest import pictures

__all__ = ["pictures"]

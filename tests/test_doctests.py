"""The examples in docstrings do what they show."""

import doctest
import importlib

import pytest

import fastmagn


@pytest.mark.parametrize("module", ["fastmagn.augment.augmix", "fastmagn.losses.magn"])
def test_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_public_names_are_there():
    for name in fastmagn.__all__:
        assert getattr(fastmagn, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'fastmagn' has no attribute 'AugMax'"):
        _ = fastmagn.AugMax

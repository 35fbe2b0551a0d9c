"""Compiled kernels are kept on disk, and work where they cannot be."""

import errno

import pytest
from numba.core.caching import IndexDataCacheFile

from fastmagn_kernels.compiling import jit


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("no compiled object")]
)
def test_a_kernel_that_cannot_be_kept_is_compiled_for_this_process(fault, monkeypatch):
    tried = []

    def refuse(self, key, data):
        tried.append(key)
        raise fault

    monkeypatch.setattr(IndexDataCacheFile, "save", refuse)
    twice = jit(lambda number: 2 * number)
    assert twice(21) == 42
    assert tried
    assert twice(4) == 8

"""Blocks of the random stream as four words of one type."""

import numpy as np
from numba import cuda

from fastmagn_kernels.random.rng import philox4x32, stream_view_word


@cuda.jit(device=True)
def block_words(slot, stream, view, index, s):
    """Return the four words of block `slot`, uint32; `s` is draws.Settings."""
    w0, w1, w2, w3 = philox4x32(slot, stream_view_word(stream, view), index, s.epoch, s.key_0, s.key_1)
    return np.uint32(w0), np.uint32(w1), np.uint32(w2), np.uint32(w3)

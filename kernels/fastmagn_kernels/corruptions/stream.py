"""The random stream of the corruptions. The kernels' modules say what its slots mean."""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random.rng import STREAM_CORRUPTION, philox4x32, standard_normal, stream_view_word


class Stream(NamedTuple):
    """The random stream of one corruption at one severity.

    Args:
        view: Its view of STREAM_CORRUPTION, 0..2^24 - 1.
        key_0: The low 32 bits of the seed.
        key_1: The high 32 bits of the seed.
    """

    view: int
    key_0: np.uint32
    key_1: np.uint32


@jit
def slot_words(stream, index, slot):
    """Return the four words, uint32, of a slot for sample `index`."""
    view, key_0, key_1 = stream  # numba refuses an attribute with the name `view`
    return philox4x32(slot, stream_view_word(STREAM_CORRUPTION, view), index, 0, key_0, key_1)


@jit
def first_word(stream, index, slot):
    """Return the first word, uint32, of a slot for sample `index`."""
    word, _, _, _ = slot_words(stream, index, slot)
    return np.uint32(word)


@jit
def fill_words(out, stream, index):
    """Fill `out`, uint32 [N], with words for sample `index`: word j is word j mod 4 of slot j div 4."""
    for j in range(0, out.size, 4):
        w0, w1, w2, w3 = slot_words(stream, index, j // 4)
        out[j] = w0
        if j + 1 < out.size:
            out[j + 1] = w1
        if j + 2 < out.size:
            out[j + 2] = w2
        if j + 3 < out.size:
            out[j + 3] = w3


@jit
def fill_normals(out, stream, index):
    """Fill `out`, float32 [N] contiguous, with standard normals for sample `index`, as `rng.standard_normal` does."""
    view, key_0, key_1 = stream
    standard_normal(out, STREAM_CORRUPTION, view, index, 0, key_0, key_1)

"""The arithmetic of noise patches that both engines share: of words, of a point's norm and of a patched value.

numba compiles these functions for their caller, the CPU or a CUDA kernel. `random.policies` says what is drawn.
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.rng import STREAM_PATCH, log_uniform, philox4x32, stream_view_word

_FIXED_ONE = np.float32(1 << 20)  # the norm's terms are added as integers: in any order, the sum is the same
_SQRT_HALF = np.float32(math.sqrt(0.5))
_TWO_TO_MINUS_24 = np.float32(2.0**-24)


@jit
def fraction(word):
    """Return a float32 in [0, 1) from the 24 highest bits of a word."""
    return np.float32(np.uint32(word) >> np.uint32(8)) * _TWO_TO_MINUS_24


@jit
def signed_by(value, word):
    """Return `value` with a sign from a word's lowest bit, which `fraction` and `log_uniform` do not use."""
    return value if np.uint32(word) & np.uint32(1) else -value


@jit
def fixed(value, squared):
    """Return `value`, float32, or half its square, in fixed point: int32. Both are below 2^11 (`log_uniform`)."""
    term = np.float32(0.5) * value * value if squared else value
    return np.int32(term * _FIXED_ONE)


@jit
def ball_scale(noise, strength, total, index, epoch, key_0, key_1):
    """Return the factor, float32, that moves a point into the l_p ball of radius `strength`, p as `noise` says.

    `total` is the sum of `fixed` over its elements, int64. A point whose density falls with exp(-|x|^p), divided by
    (sum |x|^p + e)^(1/p) with an exponential e, is uniform in the unit ball. Source: F. Barthe et al., "A probabilistic
    approach to the geometry of the l_p^n-ball", 2005.
    """
    word, _, _, _ = philox4x32(2, stream_view_word(STREAM_PATCH, 0), index, epoch, key_0, key_1)
    norm = np.float64(total) / np.float64(_FIXED_ONE) + np.float64(-log_uniform(word))
    if noise == policies.L2:
        return np.float32(strength / math.sqrt(norm)) * _SQRT_HALF
    return np.float32(strength / (norm if noise == policies.L1 else norm * norm))


@jit
def clip(value):
    """Return a float32, clipped to [0, 1]."""
    return min(max(value, np.float32(0)), np.float32(1))

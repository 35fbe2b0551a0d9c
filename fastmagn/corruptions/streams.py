"""The random stream of a corruption. Apart from `corruptions` itself, whose tables must not need numba."""

from fastmagn.corruptions import random_view
from fastmagn_kernels.corruptions.stream import Stream
from fastmagn_kernels.random.rng import key_words


def stream_of(name: str, severity: int, seed: int) -> Stream:
    """What the kernel of a corruption draws from at a severity, keyed by the seed."""
    return Stream(random_view(name, severity), *key_words(seed))

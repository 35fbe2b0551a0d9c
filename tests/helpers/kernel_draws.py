"""A generator that hands out an image's words of the corruptions' random stream, in their order."""

import itertools
import math

import numpy as np

from fastmagn.corruptions import random_view
from fastmagn_kernels.random.rng import STREAM_CORRUPTION, key_words
from tests.helpers.philox import philox_reference


class KernelDraws:
    """As much of numpy.random.Generator as the plain corruptions use."""

    def __init__(self, name: str, severity: int, seed: int, index: int) -> None:
        self._stream, self._index = (STREAM_CORRUPTION << 24) | random_view(name, severity), index
        self._key = [int(word) for word in key_words(seed)]
        self._words: list[int] = []
        self._slot = 0

    def _take(self, count: int) -> np.ndarray:
        while len(self._words) < count:
            self._words += philox_reference([self._slot, self._stream, self._index, 0], self._key)
            self._slot += 1
        taken, self._words = self._words[:count], self._words[count:]
        return np.array(taken, np.uint64)

    def random(self, size: int | tuple[int, ...] = ()) -> np.ndarray:
        return self._take(math.prod(np.atleast_1d(size).astype(int)) if size else 1).reshape(size) * 2.0**-32

    def integers(self, low: int, high: int, size: int | tuple[int, ...] = ()) -> np.ndarray:
        return low + np.floor(self.random(size) * (high - low)).astype(int)

    def permutation(self, n: int) -> np.ndarray:
        return np.array(list(itertools.permutations(range(n))))[self.integers(0, math.factorial(n))]

    def standard_normal(self, count: int) -> np.ndarray:
        """Box and Muller's: two words give two normals."""
        words = self._take((count + 1) // 2 * 2).reshape(-1, 2)
        radius = np.sqrt(-2 * np.log((words[:, 0] // 256 + 0.5) * 2.0**-24))
        angle = 2 * np.pi * (words[:, 1] * 2.0**-32)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count]

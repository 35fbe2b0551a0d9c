"""How the CUDA engine stores the views of an image, [H W 3] from the index `start` of `out`, in the views' dtype.

Values are computed in float32, in the CPU engine's order of operations, and rounded to nearest when they are stored.
Four values at a time, of one word, are stored at once, so that a warp stores 512 contiguous bytes of float32.
"""

from typing import NamedTuple

import numpy as np
from numba import cuda, types

from fastmagn_kernels.augmix_cuda.device import byte, num_threads, store_vector, thread_number
from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.rng import STREAM_NOISE, normal_pair, philox4x32, stream_view_word

_ONE_OVER_765 = np.float32(1 / 765)

# The dtype of the views -> the type in the kernel. numba has no arrays of bfloat16; their bits are passed instead.
ELEMENTS = {"float32": types.float32, "float16": types.float16, "bfloat16": types.uint16}
# Likewise for AugMix views alone, as uint8 in 0..255 or as floats.
ALONE_ELEMENTS = {"float32": types.float32, "uint8": types.uint8}
# How a value becomes an element: as it is, as the bits of a bfloat16, or rounded to 256 levels.
PLAIN, BFLOAT16, LEVEL = range(3)
_NO_FRACTION = np.float32(2**23)


class Kept(NamedTuple):
    """Where the ends of chains are kept that have no row: in the memory of the view itself, until it is stored.

    Four values of a view take `step` words, and four values of a chain one. Word `step j + w` from `start` on is word j
    of chain w. A thread reads and writes only words of the values that it stores.

    Args:
        words: The memory of all views, uint32.
        start: The first word of the view, uint64.
        step: Bytes of a value of the view, uint32.
        count: How many chains are kept so, at most `step`: the first ones; uint32.
    """

    words: np.ndarray
    start: np.uint64
    step: np.uint32
    count: np.uint32


@jit
def unit(value):
    """Return a uint8 / 255, float32, rounded to nearest.

    A division would take a third of the time of storing a view. 3 v is exact, and float32(1 / 765) is so near to
    1 / 765 that the product rounds as v / 255 does for each of the 256 values.
    """
    return np.float32(3) * np.float32(value) * _ONE_OVER_765


@jit
def bfloat16_bits(value):
    """Round a finite float32 to the nearest bfloat16, ties to even, and return its bits: uint16."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@jit
def level(value):
    """Round a float32 in [0, 1] to 256 levels, ties to even: uint8. Adding 2^23 rounds, as no fraction has a place."""
    return np.uint8(np.int32((value * np.float32(255) + _NO_FRACTION) - _NO_FRACTION))


@cuda.jit(device=True)
def store_value(out, i, value, encoding):
    """Store a float32 in out[i]. Inlining makes `encoding` a constant."""
    if encoding == BFLOAT16:
        out[i] = bfloat16_bits(value)
    elif encoding == LEVEL:
        out[i] = level(value)
    else:
        out[i] = value


@cuda.jit(device=True)
def _store_four(out, start, k, num_values, values, encoding):
    """Store the values k..k + 3 of an image, as far as there are so many."""
    first, second, third, fourth = values
    i = start + np.uint64(k)
    if num_values % 4 != 0:
        for n in range(4):
            if k + n < num_values:
                store_value(out, i + np.uint64(n), values[n], encoding)
    elif encoding == BFLOAT16:
        store_vector(
            out, i, bfloat16_bits(first), bfloat16_bits(second), bfloat16_bits(third), bfloat16_bits(fourth)
        )  # fmt: skip
    elif encoding == LEVEL:
        store_vector(out, i, level(first), level(second), level(third), level(fourth))
    else:
        store_vector(out, i, first, second, third, fourth)


@cuda.jit(device=True)
def store_clean(words, clean, num_values, out, start, encoding):
    """Store the row that starts at the byte `clean`, in [0, 1]."""
    j, num_words = thread_number(), np.uint32(np.uint32(num_values + np.uint32(3)) >> np.uint32(2))
    while j < num_words:
        word = words[np.uint32((clean >> np.uint32(2)) + j)]
        values = (
            np.float32(unit(byte(word, 0))),
            np.float32(unit(byte(word, 1))),
            np.float32(unit(byte(word, 2))),
            np.float32(unit(byte(word, 3))),
        )
        _store_four(out, start, np.uint32(4 * j), num_values, values, encoding)
        j = np.uint32(j + num_threads())


@cuda.jit(device=True)
def _add_bytes(sums, weight, word):
    """Add the weighted bytes of a word to four float32."""
    first, second, third, fourth = sums
    return (
        np.float32(first + weight * np.float32(byte(word, 0))),
        np.float32(second + weight * np.float32(byte(word, 1))),
        np.float32(third + weight * np.float32(byte(word, 2))),
        np.float32(fourth + weight * np.float32(byte(word, 3))),
    )


@cuda.jit(device=True)
def _mix(rest, value, mix_weight, mixture):
    return np.float32(rest * np.float32(unit(value)) + mix_weight * mixture)


@cuda.jit(device=True)
def keep_chain(words, row, num_values, kept, w):
    """Copy the row at the byte `row`, the end of chain w, to its place among the kept chains."""
    j, num_words = thread_number(), np.uint32(np.uint32(num_values + np.uint32(3)) >> np.uint32(2))
    while j < num_words:
        kept.words[kept.start + np.uint64(np.uint32(kept.step * j + w))] = words[np.uint32((row >> np.uint32(2)) + j)]
        j = np.uint32(j + num_threads())


@cuda.jit(device=True)
def store_mixture(words, clean, chains, row_bytes, kept, weights, num_chains, num_values, out, start, encoding):
    """Store (1 - m) x + m sum_w (weight_w / 255) chain_w.

    The ends of the first chains are kept as `Kept` says, those of the others in rows of `row_bytes` from the byte
    `chains` on.
    """
    chains_end = np.uint32(num_chains)
    mix_weight = weights[chains_end]
    rest = np.float32(1) - mix_weight
    j, num_words = thread_number(), np.uint32(np.uint32(num_values + np.uint32(3)) >> np.uint32(2))
    while j < num_words:
        sums = (np.float32(0), np.float32(0), np.float32(0), np.float32(0))
        place = kept.start + np.uint64(np.uint32(kept.step * j))
        row = np.uint32((chains >> np.uint32(2)) + j)
        w = np.uint32(0)
        while w < chains_end:
            if w < kept.count:
                word = kept.words[place + np.uint64(w)]
            else:
                word = words[row]
                row = np.uint32(row + (row_bytes >> np.uint32(2)))
            sums = _add_bytes(sums, weights[w], word)
            w = np.uint32(w + 1)
        word = words[np.uint32((clean >> np.uint32(2)) + j)]
        values = (
            _mix(rest, byte(word, 0), mix_weight, sums[0]),
            _mix(rest, byte(word, 1), mix_weight, sums[1]),
            _mix(rest, byte(word, 2), mix_weight, sums[2]),
            _mix(rest, byte(word, 3), mix_weight, sums[3]),
        )
        _store_four(out, start, np.uint32(4 * j), num_values, values, encoding)
        j = np.uint32(j + num_threads())


@cuda.jit(device=True)
def store_noisy(view, index, s, pixels, clean, num_values, out, start, encoding):
    """Store x + sigma z, the elements of z in the order of `rng.standard_normal`: block b gives b, b + Q, and so on."""
    sigma = np.float32(draws.draw_sigma(view, index, s.epoch, s.key_0, s.key_1, s.sigma_max))
    word = stream_view_word(STREAM_NOISE, view)
    quarter = np.uint32(np.uint32(num_values + np.uint32(3)) >> np.uint32(2))
    b = thread_number()
    while b < quarter:
        w0, w1, w2, w3 = philox4x32(b, word, index, s.epoch, s.key_0, s.key_1)
        for pair in range(2):
            z0, z1 = normal_pair(w0 if pair == 0 else w2, w1 if pair == 0 else w3)
            k = np.uint32(2 * pair * quarter + b)
            if k < num_values:
                value = np.float32(unit(pixels[np.uint32(clean + k)])) + np.float32(sigma * z0)
                store_value(out, start + np.uint64(k), value, encoding)
            k = np.uint32(k + quarter)
            if k < num_values:
                value = np.float32(unit(pixels[np.uint32(clean + k)])) + np.float32(sigma * z1)
                store_value(out, start + np.uint64(k), value, encoding)
        b = np.uint32(b + num_threads())

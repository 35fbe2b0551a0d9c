"""The random stream: Philox 4x32-10. It is counter based, so no draw depends on another.

Every random number of a run is a pure function of (seed, stream, view, epoch, sample index, slot):

    key     = the seed's low and high 32 bits
    counter = (slot, stream << 24 | view, sample index, epoch)

One block gives four words of 32 bits. The modules that draw from a stream say what its slots mean (`draws.py`, the
corruption kernels). numba compiles the scalar functions for their caller, the CPU or a CUDA kernel.

Source: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Random123).
"""

import math

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.threads import over_chunks

# A stream's number is the high byte of the second counter word. It is never reused: runs must replay.
STREAM_BASE = 0
STREAM_AUGMIX = 1
STREAM_NOISE = 2
STREAM_SIGMA = 3
STREAM_PERMUTATION = 4
STREAM_CORRUPTION = 5
STREAM_ATTACK = 6
STREAM_MIXING = 7
STREAM_POLICY = 8  # historic: it seeded torchvision's generators, until policies had kernels
STREAM_ENSEMBLE = 9
STREAM_CROP = 10
STREAM_OPERATIONS = 11
STREAM_ERASING = 12
STREAM_PATCH = 13
STREAM_PARTNER = 14
STREAM_SPECTRA = 15
STREAM_AFA = 16
STREAM_PRIME = 17
STREAM_NOISYMIX = 18
STREAM_NOISY_HALF = 19

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint32(0x9E3779B9)
_WEYL_1 = np.uint32(0xBB67AE85)
_SHIFT_32 = np.uint64(32)

_CHUNK_DRAWS = 2**17  # about 0.4 ms
BLOCKS_AT_ONCE = 1024  # of the stream: their 4,096 words and what is made of them stay in a core's first cache

_TWO_TO_MINUS_24 = np.float32(2.0**-24)
_TWO_TO_MINUS_32 = 2.0**-32
_HALF = np.float32(0.5)
_LN_2 = np.float32(math.log(2))
_SQRT_HALF = np.float32(math.sqrt(0.5))
# Chebyshev fits. ln(1 + f) = f - f^2/2 + f^3 P(f) for 1 + f in [sqrt(1/2), sqrt(2)]; the error of P is below 3e-8.
_LOG = tuple(
    np.float32(c)
    for c in (
        *(0.333333312, -0.24999989, 0.200007075, -0.166684802, 0.142499365),
        *(-0.124110507, 0.116615111, -0.115712007, 0.0714975389),
    )
)
# sin(2 pi r) = r S(r^2) and cos(2 pi r) = C(r^2) for |r| <= 1/8; the errors are below 2e-8.
_SIN = tuple(np.float32(c) for c in (6.28318529, -41.3416626, 81.5925482, -75.4018403))
_COS = tuple(np.float32(c) for c in (1.0, -19.7392087, 64.9393162, -85.4428484, 59.2202882))


@jit
def philox4x32(slot, stream_view, index, epoch, key_0, key_1):
    """Compute one Philox 4x32-10 block: four uint32 from the counter and the key, six uint32."""
    c0, c1, c2, c3 = np.uint32(slot), np.uint32(stream_view), np.uint32(index), np.uint32(epoch)
    k0, k1 = np.uint32(key_0), np.uint32(key_1)
    for _ in range(10):
        product_0 = _MULTIPLIER_0 * np.uint64(c0)
        product_1 = _MULTIPLIER_1 * np.uint64(c2)
        c0 = np.uint32(product_1 >> _SHIFT_32) ^ c1 ^ k0
        c1 = np.uint32(product_1)
        c2 = np.uint32(product_0 >> _SHIFT_32) ^ c3 ^ k1
        c3 = np.uint32(product_0)
        k0 = np.uint32(k0 + _WEYL_0)
        k1 = np.uint32(k1 + _WEYL_1)
    return c0, c1, c2, c3


@jit
def stream_view_word(stream, view):
    """Return the counter word of a stream and a view in 0..2^24 - 1: uint32."""
    return np.uint32((np.uint32(stream) << np.uint32(24)) | np.uint32(view))


@jit
def uniform(word):
    """Map a uint32 to a float64, uniform in [0, 1)."""
    return np.float64(word) * _TWO_TO_MINUS_32


@jit
def below(word, n):
    """Map a uint32 to an int64, uniform in 0..n - 1; each probability is off by less than 2^-32."""
    return np.int64((np.uint64(word) * np.uint64(n)) >> _SHIFT_32)


@jit
def log_uniform(word):
    """Map a uint32 to ln(u), float32, where u is uniform in (0, 1] in steps of 2^-24 and never 0.

    A polynomial replaces libm: it vectorises (noise takes 3,072 draws per image) and rounds alike everywhere.
    """
    u = (np.float32(np.uint32(word) >> np.uint32(8)) + _HALF) * _TWO_TO_MINUS_24
    bits = np.float32(u).view(np.int32)
    exponent = np.int32(bits >> np.int32(23)) - np.int32(126)
    mantissa = np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)).view(np.float32)
    small = mantissa < _SQRT_HALF
    mantissa = mantissa + mantissa if small else mantissa
    exponent = exponent - np.int32(1) if small else exponent
    f = mantissa - np.float32(1)
    p = _LOG[8]
    for k in (7, 6, 5, 4, 3, 2, 1, 0):
        p = p * f + _LOG[k]
    f2 = f * f
    return np.float32(exponent) * _LN_2 + (f - _HALF * f2 + f2 * f * p)


@jit
def sin_cos_turn(word):
    """Map a uint32 to the sine and cosine, float32, of an angle that is uniform in one turn."""
    eighth = np.uint32(word) >> np.uint32(29)
    quarter = np.int32((eighth + np.uint32(1)) >> np.uint32(1))  # the nearest quarter turn, 0..4
    r = np.float32(np.int32(np.uint32(word) - (np.uint32(quarter) << np.uint32(30)))) * np.float32(_TWO_TO_MINUS_32)
    z = r * r
    sine = r * (_SIN[0] + z * (_SIN[1] + z * (_SIN[2] + z * _SIN[3])))
    cosine = _COS[0] + z * (_COS[1] + z * (_COS[2] + z * (_COS[3] + z * _COS[4])))
    swap = (quarter & 1) == 1
    first = cosine if swap else sine
    second = sine if swap else cosine
    first = -first if (quarter & 2) == 2 else first
    second = -second if ((quarter + 1) & 2) == 2 else second
    return first, second


@jit
def normal_pair(word_0, word_1):
    """Map two uint32 to two independent standard normals z, float32 (Box-Muller); |z| is below 5.9."""
    radius = math.sqrt(np.float32(-2) * log_uniform(word_0))
    sine, cosine = sin_cos_turn(word_1)
    return radius * cosine, radius * sine


@jit
def fill_words(out, first, stream, view, index, epoch, key_0, key_1):
    """Fill `out`, uint32 [4, N], with the words of N blocks of a stream, from block `first` on."""
    stream_view = stream_view_word(stream, view)
    for b in range(out.shape[1]):
        out[0, b], out[1, b], out[2, b], out[3, b] = philox4x32(first + b, stream_view, index, epoch, key_0, key_1)


@jit
def standard_normal(out, stream, view, index, epoch, key_0, key_1):
    """Fill `out`, float32 [N] contiguous, with standard normals.

    Block b of the stream gives the elements b, b + Q, b + 2Q and b + 3Q, where Q = ceil(N / 4), so that the stores are
    contiguous over b. A first loop draws the words of many blocks and a second one makes the normals: only apart do
    they vectorise (10 us instead of 22 for an image of 32x32).
    """
    quarter = (out.size + 3) // 4
    words = np.empty((4, min(quarter, BLOCKS_AT_ONCE)), np.uint32)
    normals = np.empty_like(words).view(np.float32)
    for first in range(0, quarter, BLOCKS_AT_ONCE):
        count = min(BLOCKS_AT_ONCE, quarter - first)
        fill_words(words[:, :count], first, stream, view, index, epoch, key_0, key_1)
        for pair in range(2):
            for b in range(count):
                z0, z1 = normal_pair(words[2 * pair, b], words[2 * pair + 1, b])
                normals[2 * pair, b] = z0
                normals[2 * pair + 1, b] = z1
        for n in range(4):
            part = out[n * quarter + first :][:count]
            for b in range(part.size):  # for a slice's assignment numba compiles messages about shapes, for 2 s
                part[b] = normals[n, b]


@jit(nogil=True)
def _standard_normal_rows(out, stream, view, indices, epoch, key_0, key_1):
    for i in range(out.shape[0]):
        standard_normal(out[i], stream, view, indices[i], epoch, key_0, key_1)


def standard_normal_batch(out, stream, view, indices, epoch, key_0, key_1):
    """Fill row i of `out`, float32 [B, N] contiguous, with the normals of sample `indices[i]`, int64 [B]."""
    _on_threads(_standard_normal_rows, out, stream, view, indices, epoch, key_0, key_1)


@jit(nogil=True)
def _uniform_rows(out, stream, view, indices, epoch, key_0, key_1):
    stream_view = stream_view_word(stream, view)
    for i in range(out.shape[0]):
        for b in range((out.shape[1] + 3) // 4):
            w0, w1, w2, w3 = philox4x32(b, stream_view, indices[i], epoch, key_0, key_1)
            for k, word in enumerate((np.uint32(w0), np.uint32(w1), np.uint32(w2), np.uint32(w3))):
                if 4 * b + k < out.shape[1]:
                    out[i, 4 * b + k] = np.float32(word >> np.uint32(8)) * _TWO_TO_MINUS_24


def uniform_batch(out, stream, view, indices, epoch, key_0, key_1):
    """Fill row i of `out`, float32 [B, N] contiguous, with uniforms of sample `indices[i]`, int64 [B].

    They are in [0, 1), in steps of 2^-24. Element n comes from word n % 4 of the stream's block n // 4.
    """
    _on_threads(_uniform_rows, out, stream, view, indices, epoch, key_0, key_1)


def _on_threads(fill_rows, out, stream, view, indices, epoch, key_0, key_1):
    def fill(rows):
        fill_rows(out[rows], stream, view, indices[rows], epoch, key_0, key_1)

    over_chunks(fill, len(out), max(1, _CHUNK_DRAWS // max(1, out.shape[1])))


@jit
def words_batch(out, slot, stream, view, indices, epoch, key_0, key_1):
    """Fill row i of `out`, uint32 [B, 4], with the words of block `slot` of sample `indices[i]`, int64 [B]."""
    stream_view = stream_view_word(stream, view)
    for i in range(out.shape[0]):
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = philox4x32(slot, stream_view, indices[i], epoch, key_0, key_1)


@jit
def permutation_words(out, epoch, key_0, key_1):
    """Fill `out`, uint64 [N], with the 64-bit sort keys of an epoch's permutation."""
    word = stream_view_word(STREAM_PERMUTATION, 0)
    for i in range(out.size):
        w0, w1, _, _ = philox4x32(0, word, i, epoch, key_0, key_1)
        out[i] = (np.uint64(w0) << _SHIFT_32) | np.uint64(w1)


def key_words(seed: int) -> tuple[np.uint32, np.uint32]:
    """Split a run's seed, 0..2^64 - 1, into the low and the high word of the Philox key.

    Raises:
        ValueError: The seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed: got {seed}; expected 0..2^64 - 1.")
    return np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch visits n samples: int64 [n], a permutation of 0..n - 1."""
    sort_keys = np.empty(n, np.uint64)
    permutation_words(sort_keys, epoch, *key_words(seed))
    return np.argsort(sort_keys, kind="stable")

"""Noise of the corruption sets, Gaussian and speckle, shot, impulse: uint8 in, uint8 out.

Each value of a channel is one draw. `view` is the corruption's view of STREAM_CORRUPTION, `indices` the samples' own;
Gaussian draws lie in the stream as `rng.standard_normal` lays them, the others as `fill_words` does.

These kernels and their neighbours go through a batch one image after another and release Python's lock: the caller
spreads chunks over threads. Numba's own `parallel` takes three times as long to compile (39 s for all), and aborts the
process when two Python threads enter such kernels under its default threading layer.
"""

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random.rng import STREAM_CORRUPTION, philox4x32, standard_normal, stream_view_word

_ZERO = np.float32(0)
_WHITE = np.float32(255)


@jit
def shot_level(word, start_levels, last_words):
    """The level drawn by one uint32: the first whose `last_words` (uint32 [256]) is not below it.

    `start_levels` (uint8 [256]) says for each top byte of the word where to begin, so that the walk takes about one
    step instead of the eight of a binary search.
    """
    level = np.int64(start_levels[np.int64(np.uint32(word) >> np.uint32(24))])
    while word > last_words[level]:
        level += 1
    return np.uint8(level)


@jit
def impulse_level(word, level, salt_below, flip_below):
    """White for words below `salt_below`, black for those from there to `flip_below`, the level itself otherwise."""
    if np.uint64(word) >= flip_below:
        return level
    return np.uint8(255) if np.uint64(word) < salt_below else np.uint8(0)


@jit(nogil=True)
def normal_noise_batch(out, images, scale, of_signal, view, indices, key_0, key_1):
    """out = floor(x + scale * s * z), clipped to 0..255; s is x itself where `of_signal`, else 255.

    `images` and `out` are uint8 [N, P]; `scale` float32 is the standard deviation as a share of s.
    """
    for i in range(images.shape[0]):
        z = np.empty(images.shape[1], np.float32)
        standard_normal(z, STREAM_CORRUPTION, view, indices[i], 0, key_0, key_1)
        for j in range(z.size):
            x = np.float32(images[i, j])
            x += scale * (x if of_signal else _WHITE) * z[j]
            out[i, j] = np.uint8(min(max(x, _ZERO), _WHITE))


@jit
def fill_words(out, view, index, first_slot, key_0, key_1):
    """Fill `out`, uint32 [N], with a corruption's random words: word j is word j mod 4 of slot first_slot + j div 4."""
    stream = stream_view_word(STREAM_CORRUPTION, view)
    for j in range(0, out.size, 4):
        w0, w1, w2, w3 = philox4x32(first_slot + j // 4, stream, index, 0, key_0, key_1)
        out[j] = w0
        if j + 1 < out.size:
            out[j + 1] = w1
        if j + 2 < out.size:
            out[j + 2] = w2
        if j + 3 < out.size:
            out[j + 3] = w3


@jit
def first_word(view, index, slot, key_0, key_1):
    """Word 0 of one block of a corruption's random stream, uint32."""
    word, _, _, _ = philox4x32(slot, stream_view_word(STREAM_CORRUPTION, view), index, 0, key_0, key_1)
    return np.uint32(word)


@jit(nogil=True)
def shot_noise_batch(out, images, start_levels, last_words, view, indices, key_0, key_1):
    """Draw each level from its own table: `images`, `out` uint8 [N, P], `start_levels` uint8 [256, 256] by level and
    the word's top byte, `last_words` uint32 [256, 256] by level and drawn level.
    """
    for i in range(images.shape[0]):
        words = np.empty(images.shape[1], np.uint32)
        fill_words(words, view, indices[i], 0, key_0, key_1)
        for j in range(words.size):
            level = images[i, j]
            out[i, j] = shot_level(words[j], start_levels[level], last_words[level])


@jit(nogil=True)
def impulse_noise_batch(out, images, salt_below, flip_below, view, indices, key_0, key_1):
    """Replace each value of `images` (uint8 [N, P]) by white or black with the probability that the bounds (uint64,
    in 2^-32) give; `out` is uint8 [N, P].
    """
    for i in range(images.shape[0]):
        words = np.empty(images.shape[1], np.uint32)
        fill_words(words, view, indices[i], 0, key_0, key_1)
        for j in range(words.size):
            out[i, j] = impulse_level(words[j], images[i, j], salt_below, flip_below)

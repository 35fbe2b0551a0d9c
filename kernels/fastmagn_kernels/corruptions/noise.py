"""Noise of the corruption sets: Gaussian and speckle, shot, impulse. uint8 in, uint8 out.

Each value of a channel has its own draw: Gaussian draws in the order of `stream.fill_normals`, the others in that of
`stream.fill_words`. `indices` are the sample indices, int64 [N].

All kernels of the corruptions process the images of a batch one after another and release Python's lock, so that the
caller can run chunks on threads. Numba's own `parallel` takes three times as long to compile (39 s for all), and aborts
the process if two Python threads enter such kernels under its default threading layer.
"""

import numpy as np

from fastmagn_kernels.compiling import jit
from fastmagn_kernels.corruptions.stream import fill_normals, fill_words

_ZERO = np.float32(0)
_WHITE = np.float32(255)


@jit
def shot_level(word, start_levels, last_words):
    """Return the level, uint8, that a uint32 draws: the first whose entry in `last_words` is not below it.

    `last_words` is uint32 [256]. `start_levels`, uint8 [256], is the level to start from, for each top byte of the
    word: the search then takes about one step, where a binary search takes eight.
    """
    level = np.int64(start_levels[np.int64(np.uint32(word) >> np.uint32(24))])
    while word > last_words[level]:
        level += 1
    return np.uint8(level)


@jit
def impulse_level(word, level, salt_below, flip_below):
    """Return white for a word below `salt_below`, else black below `flip_below`, else the level itself."""
    if np.uint64(word) >= flip_below:
        return level
    return np.uint8(255) if np.uint64(word) < salt_below else np.uint8(0)


@jit(nogil=True)
def normal_noise_batch(out, images, scale, of_signal, stream, indices):
    """Add normal noise: out = floor(x + scale * s * z), clipped to 0..255, with z standard normal.

    s is x itself if `of_signal`, else 255. `images` and `out` are uint8 [N, P]; `scale`, float32, is the standard
    deviation as a share of s.
    """
    for i in range(images.shape[0]):
        z = np.empty(images.shape[1], np.float32)
        fill_normals(z, stream, indices[i])
        for j in range(z.size):
            x = np.float32(images[i, j])
            x += scale * (x if of_signal else _WHITE) * z[j]
            out[i, j] = np.uint8(min(max(x, _ZERO), _WHITE))


@jit(nogil=True)
def shot_noise_batch(out, images, start_levels, last_words, stream, indices):
    """Replace each level by a draw from its own table: `images` and `out` are uint8 [N, P].

    `start_levels`, uint8 [256, 256], is indexed by the level and the word's top byte; `last_words`, uint32 [256, 256],
    by the level and the drawn level.
    """
    for i in range(images.shape[0]):
        words = np.empty(images.shape[1], np.uint32)
        fill_words(words, stream, indices[i])
        for j in range(words.size):
            level = images[i, j]
            out[i, j] = shot_level(words[j], start_levels[level], last_words[level])


@jit(nogil=True)
def impulse_noise_batch(out, images, salt_below, flip_below, stream, indices):
    """Replace each value by white or black: `images` and `out` are uint8 [N, P].

    The bounds, uint64 in 2^-32, are the probability of white and that of either.
    """
    for i in range(images.shape[0]):
        words = np.empty(images.shape[1], np.uint32)
        fill_words(words, stream, indices[i])
        for j in range(words.size):
            out[i, j] = impulse_level(words[j], images[i, j], salt_below, flip_below)

"""The erased area of a block's image, equal to the CPU engine's (`policy_cpu.recipe`) to the bit."""

import numpy as np
from numba import cuda

from fastmagn_kernels.augmix_cuda.device import byte, num_threads, thread_number
from fastmagn_kernels.augmix_cuda.words import pack
from fastmagn_kernels.policy_cuda.rectangles import is_between, rectangle
from fastmagn_kernels.policy_cuda.stream import block_words
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.rng import STREAM_ERASING

_VIEW = 1  # of the stream, for the bytes of noise


@cuda.jit(device=True)
def draw_box(index, s, erasing, ratios, box):
    """Draw the erased area of sample `index` into `box`, int32 [4] in shared memory: left, top, width, height, px.

    The width is 0 if there is none. One thread draws; the caller synchronises the block before `box` is read.
    `erasing` is policies.Erasing, its colour a uint32, red lowest; `ratios` is `policies.sqrt_ratios()`.
    """
    if thread_number() == 0:
        left, top, width, height = policies.draw_erased(
            index, s.epoch, s.key_0, s.key_1, s.height, s.width, erasing, ratios
        )
        box[0], box[1], box[2], box[3] = left, top, width, height


@cuda.jit(device=True)
def _merged(word, filled, k, column, area):
    """Return a word, uint32, whose bytes in the rectangle are those of `filled`; and the column of the next word.

    The first of its bytes is element `k` of the image, in the column `column`.
    """
    mask = np.uint32(0)
    for n in range(4):
        inside = is_between(np.uint32(k + n), area.start, area.size) and is_between(column, area.left, area.width)
        mask = np.uint32(mask | np.uint32(0xFF << (8 * n))) if inside else mask
        column = np.uint32(column + 1)
        column = np.uint32(0) if column == area.row else column
    return np.uint32((word & np.uint32(~mask)) | (filled & mask)), column


@cuda.jit(device=True)
def erase(rows, start, index, s, erasing, box):
    """Fill the drawn area of the row that starts at the byte `start`; `box` is what `draw_box` gives.

    A thread takes the 16 elements of a block of the stream, four words, so that no two threads share one. The caller
    synchronises the block before and after.
    """
    area, words = rectangle(box, s.width), rows.words
    red, green, blue = byte(erasing.colour, 0), byte(erasing.colour, 1), byte(erasing.colour, 2)
    patterns = pack(red, green, blue, red), pack(green, blue, red, green), pack(blue, red, green, blue)
    last = np.uint32(np.uint32(area.start + area.size) - np.uint32(area.row - area.left - area.width))
    num_words = np.uint32(np.uint32(last + 3) >> np.uint32(2))
    block = np.uint32(np.uint32(np.uint32(area.start + area.left) >> np.uint32(4)) + thread_number())
    while np.uint32(4 * block) < num_words:
        noise = (np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0))
        if erasing.fill == policies.ERASE_NOISE:
            noise = block_words(block, STREAM_ERASING, _VIEW, index, s)
        column = np.uint32(np.uint32(16 * block) % area.row)
        for n in range(4):
            j = np.uint32(np.uint32(4 * block) + n)
            phase = np.uint32(j % np.uint32(3))
            filled = patterns[0] if phase == 0 else (patterns[1] if phase == 1 else patterns[2])
            filled = noise[n] if erasing.fill == policies.ERASE_NOISE else filled
            if j < num_words:
                i = np.uint32(np.uint32(start >> np.uint32(2)) + j)
                words[i], column = _merged(words[i], filled, np.uint32(4 * j), column, area)
        block = np.uint32(block + num_threads())

"""The noise patch of a block's image, equal to the CPU engine's (`policy_cpu.recipe`) to the bit.

An l_p ball needs the norm of all elements before the value of one. The elements are drawn twice, because there is no
memory for their floats.
"""

from typing import NamedTuple

import numpy as np
from numba import cuda

from fastmagn_kernels.augmix_cuda.device import num_threads, thread_number
from fastmagn_kernels.augmix_cuda.storing import store_value, unit
from fastmagn_kernels.policy_cuda.rectangles import is_in, rectangle
from fastmagn_kernels.policy_cuda.stream import block_words
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.noises import ball_scale, clip, fixed, fraction, signed_by
from fastmagn_kernels.random.rng import STREAM_PATCH, log_uniform, normal_pair

NUM_SUMS = 32  # the warps of the largest block
_WARP = 32
_EVERY_LANE = 0xFFFFFFFF


class Patch(NamedTuple):
    """The noise patch of a block's image, in shared memory.

    Args:
        box: Left, top, width and height, px, int32 [4]; of width 0 if there is none.
        noise: An index into policies.NOISES, int32 [1].
        scales: Its strength, the share of values left out, and the factor of a point in a ball: float32 [3].
        sums: The sum of the norm's terms of each warp, int64 [NUM_SUMS].
    """

    box: np.ndarray
    noise: np.ndarray
    scales: np.ndarray
    sums: np.ndarray


@cuda.jit(device=True)
def draw_patch_into(index, s, patches, ratios, patch):
    """Draw the noise patch of sample `index` into `patch`, but for its factor in a ball.

    One thread draws; the caller synchronises the block before it is read. `patches` is policies.Patches; `ratios` is
    `policies.sqrt_ratios()`.
    """
    if thread_number() == num_threads() - 1:
        box = patch.box
        box[2] = 0
        if patches.threshold > 0:
            left, top, width, height, noise, strength, left_out = policies.draw_patch(
                index, s.epoch, s.key_0, s.key_1, s.height, s.width, patches, ratios
            )
            box[0], box[1], box[2], box[3] = left, top, width, height
            patch.noise[0] = noise
            patch.scales[0], patch.scales[1] = strength, left_out


@cuda.jit(device=True)
def _points(noise, words, b, index, s):
    """Return four elements of block `b`, float32, before they are scaled; of balls but l_2, |x|^p without a sign."""
    w0, w1, w2, w3 = words
    if noise == policies.GAUSSIAN or noise == policies.L2:
        z0, z1 = normal_pair(w0, w1)
        z2, z3 = normal_pair(w2, w3)
        return z0, z1, z2, z3
    if noise == policies.LINF:
        one, two = np.float32(1), np.float32(2)
        return two * fraction(w0) - one, two * fraction(w1) - one, two * fraction(w2) - one, two * fraction(w3) - one
    e0, e1, e2, e3 = -log_uniform(w0), -log_uniform(w1), -log_uniform(w2), -log_uniform(w3)
    if noise == policies.L05:
        s0, s1, s2, s3 = block_words(b, STREAM_PATCH, 3, index, s)
        return e0 - log_uniform(s0), e1 - log_uniform(s1), e2 - log_uniform(s2), e3 - log_uniform(s3)
    return e0, e1, e2, e3


@cuda.jit(device=True)
def _fixed_sum(noise, quarter, num_values, index, s):
    """Return the sum of `noises.fixed` of the elements that this thread draws, int64."""
    total = np.int64(0)
    b = thread_number()
    while b < quarter:
        points = _points(noise, block_words(b, STREAM_PATCH, 1, index, s), b, index, s)
        for n in range(4):
            if np.uint32(b + np.uint32(n * quarter)) < num_values:
                total += np.int64(fixed(points[n], noise == policies.L2))
        b = np.uint32(b + num_threads())
    return total


@cuda.jit(device=True)
def _scale_into_ball(noise, quarter, num_values, index, s, patch):
    """Set the factor that moves the elements into their ball."""
    total = _fixed_sum(noise, quarter, num_values, index, s)
    for lanes in (16, 8, 4, 2, 1):
        total += cuda.shfl_xor_sync(_EVERY_LANE, total, lanes)
    if thread_number() % _WARP == 0:
        patch.sums[np.uint32(thread_number() // _WARP)] = total
    cuda.syncthreads()
    if thread_number() == 0:
        for warp in range(1, num_threads() // _WARP):
            total += patch.sums[np.uint32(warp)]
        patch.scales[2] = ball_scale(noise, patch.scales[0], total, index, s.epoch, s.key_0, s.key_1)
    cuda.syncthreads()


@cuda.jit(device=True)
def _patched(value, noise, point, word, other, factor, left_out):
    """Return a value of the clean view, float32 in [0, 1], with its noise."""
    if noise == policies.IMPULSE:
        return fraction(other) if fraction(word) < factor else value
    added = np.float32((point * point if noise == policies.L05 else point) * factor)
    added = signed_by(added, word) if noise == policies.L1 or noise == policies.L05 else added
    return value if fraction(other) < left_out else np.float32(value + added)


@cuda.jit(device=True)
def store_patched(rows, clean, index, s, patches, patch, num_values, out, start, encoding):
    """Store the row that starts at the byte `clean`, in [0, 1], with its noise patch, which it must have.

    Block b of a stream gives the elements b, b + Q, b + 2Q and b + 3Q, as in `rng.standard_normal`.
    """
    noise, factor, left_out = patch.noise[0], patch.scales[0], patch.scales[1]
    quarter = np.uint32(np.uint32(num_values + np.uint32(3)) >> np.uint32(2))
    if noise == policies.L2 or noise == policies.L1 or noise == policies.L05:
        _scale_into_ball(noise, quarter, num_values, index, s, patch)
        factor = patch.scales[2]
    elif noise == policies.IMPULSE:
        factor = np.float32(factor * (np.float32(1) - left_out))
    area = rectangle(patch.box, s.width)
    b = thread_number()
    while b < quarter:
        inside = (
            is_in(b, area),
            is_in(np.uint32(b + quarter), area),
            is_in(np.uint32(b + 2 * quarter), area),
            is_in(np.uint32(b + 3 * quarter), area),
        )
        words = others = (np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(0))
        points = (np.float32(0), np.float32(0), np.float32(0), np.float32(0))
        if inside[0] or inside[1] or inside[2] or inside[3]:
            words, others = block_words(b, STREAM_PATCH, 1, index, s), block_words(b, STREAM_PATCH, 2, index, s)
            if noise != policies.IMPULSE:
                points = _points(noise, words, b, index, s)
        for n in range(4):
            k = np.uint32(b + np.uint32(n * quarter))
            if k < num_values:
                value = np.float32(unit(rows.pixels[np.uint32(clean + k)]))
                if inside[n]:
                    value = _patched(value, noise, points[n], words[n], others[n], factor, left_out)
                    value = clip(value) if patches.clipped else value
                store_value(out, start + np.uint64(k), value, encoding)
        b = np.uint32(b + num_threads())

"""The CUDA engine: one launch draws and makes every view of a batch, bit for bit the views of `augmix_cpu`.

How the work is laid out on the device:

    block       makes every `groups`-th view of one image: first the clean view, then its views one by one. Each group
                makes the clean view again, so there are only as many groups as fill the device.
    row         an image, uint8 [H W 3]. A block has 2 + W rows: the clean view, a spare row, and the chains' ends. An
                operation reads one row and writes another. In a chain, every second operation writes the spare row, and
                the last one writes the chain's own row. So mixing reads all chains at once and keeps no sums.
    memory      rows are in shared memory if they fit (15 KiB at 32x32 and 3 chains), else in `scratch`. The grid is
                then small enough for `scratch`, and each block takes several images, one after another.
    draws       one thread draws each operation of a view into shared memory (`draws`: Philox has no state, no order).
    output      is rounded from float32 when it is stored; neighbouring threads store neighbours, so it is coalesced.

Nothing here needs a GPU until a kernel is compiled; numba's simulator needs none at all.

Shape letters: V views, B batch, J AugMix views, N noise views, W chains, D operations of a chain, G groups, H W image.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, types

from fastmagn_kernels.augmix_cuda.compiling import jit_kernel
from fastmagn_kernels.augmix_cuda.operations import (
    BINS,
    SEGMENTS,
    Scratch,
    apply_operation,
    blend_with,
    enhance_color,
    enhance_contrast,
    num_threads,
    rotate,
    shift,
    thread_number,
)
from fastmagn_kernels.compiling import jit
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.draws import MAX_DEPTH, MAX_WIDTH, NO_OPERATION, Settings
from fastmagn_kernels.random.rng import STREAM_NOISE, normal_pair, philox4x32, stream_view_word

BLOCK = (32, 8)  # a warp for a row of CIFAR's images
SCRATCH_BYTES = 60 * 2**20
MAX_PIXELS = 2**23  # of an image: the sum of its luma is an int32
_SHARED_BYTES = 40 * 2**10  # for rows; a block has 48 KiB, of which the kernel's own arrays take 6 KiB
# 4 blocks of 256 threads fit into a multiprocessor's registers (64 per thread; no loop over pixels spills) and into its
# shared memory. A batch of 512 on 132 multiprocessors is then one wave.
_BLOCKS_PER_SM = 4
_WANTED_BLOCKS_PER_SM = 3

_MAX_OPERATIONS = MAX_WIDTH * MAX_DEPTH
_MAX_WEIGHTS = MAX_WIDTH + 1
_BRIGHTNESS, _CONTRAST = 0, 1
_ONE_OVER_765 = np.float32(1 / 765)


class Drawn(NamedTuple):
    """The parameters of a block's image and of the AugMix view that it makes, in shared memory.

    Args:
        base: Crop x and y, flip, jitter order, angle: int32 [5].
        factors: Brightness, contrast, saturation: float32 [3].
        ops: The operations of the chains, int32 [W D], NO_OPERATION beyond a chain's depth.
        magnitudes: Their magnitudes, float64 [W D].
        exponentials: The exponentials of the chains, float32 [W].
        weights: The weights of the chains, divided by 255, and the mix weight: float32 [W + 1].
    """

    base: np.ndarray
    factors: np.ndarray
    ops: np.ndarray
    magnitudes: np.ndarray
    exponentials: np.ndarray
    weights: np.ndarray


_FIELD_TYPES = {int: types.int64, bool: types.boolean, float: types.float64, np.uint32: types.uint32}
_SETTINGS = types.NamedTuple([_FIELD_TYPES[field] for field in Settings.__annotations__.values()], Settings)


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


# The dtype of the views -> the type in the kernel. numba has no arrays of bfloat16; their bits are passed instead.
ELEMENTS = {"float32": types.float32, "float16": types.float16, "bfloat16": types.uint16}


class Launch(NamedTuple):
    """How a batch is launched.

    Args:
        blocks: Blocks of the grid.
        groups: Groups (G), among which the views of an image are shared.
        shared_bytes: Bytes of shared memory for the rows of a block; 0 if they are in `scratch`.
        scratch_shape: Shape of the uint8 array `scratch`.
    """

    blocks: int
    groups: int
    shared_bytes: int
    scratch_shape: tuple[int, int]

    @property
    def in_shared(self) -> bool:
        """Whether the rows are in shared memory."""
        return self.shared_bytes > 0


def plan_launch(
    batch: int, num_views: int, height: int, width: int, mixture_width: int, num_sms: int, in_shared: bool | None = None
) -> Launch:
    """Choose the launch of a batch on a device with `num_sms` multiprocessors.

    By default the rows are in shared memory if they fit; `in_shared` decides it otherwise.
    """
    rows_bytes = (2 + mixture_width) * 3 * height * width
    in_shared = rows_bytes <= _SHARED_BYTES if in_shared is None else in_shared
    groups = min(num_views, -(-_WANTED_BLOCKS_PER_SM * num_sms // batch))
    blocks = min(batch * groups, 2**31 - 1)
    if in_shared:
        return Launch(blocks, groups, rows_bytes, (1, 1))
    blocks = min(blocks, _BLOCKS_PER_SM * num_sms, max(1, SCRATCH_BYTES // rows_bytes))
    return Launch(blocks, groups, 0, (blocks, rows_bytes))


@cuda.jit(device=True)
def _jitter_part(order, step):
    """Return the part of the colour jitter at `step`: it computes the rows of `draws.JITTER_ORDERS`."""
    first = order // 2
    low = 1 if first == 0 else 0
    high = 3 - first - low
    if step == 0:
        return first
    return low if (step == 1) == (order % 2 == 0) else high


@cuda.jit(device=True)
def base_transform(image, index, s, rows, drawn, scratch, rotation_table):
    """Draw the base transform into `drawn`, and make the clean view: crop, flip, jitter and rotate into row 0."""
    base, factors = drawn.base, drawn.factors
    size = 3 * s.height * s.width
    if thread_number() == 0:
        x, y, flip, order, brightness, contrast, saturation, angle = draws.draw_base(index, s)
        base[0], base[1], base[2], base[3], base[4] = x, y, flip, order, angle
        factors[0], factors[1], factors[2] = brightness, contrast, saturation
    cuda.syncthreads()
    steps = 1 if base[4] != 0 else 0  # after the crop
    for part in range(3):
        steps += 1 if factors[part] != np.float32(1) else 0
    current = steps % 2
    target = rows[current * size : (current + 1) * size]
    shift(image, target, s.height, s.width, base[0] - s.padding_px, base[1] - s.padding_px, base[2] != 0)
    cuda.syncthreads()
    for step in range(3):
        part = _jitter_part(base[3], step)
        factor = factors[part]
        if factor == np.float32(1):
            continue
        source = rows[current * size : (current + 1) * size]
        target = rows[(1 - current) * size : (2 - current) * size]
        if part == _BRIGHTNESS:
            blend_with(0, source, target, factor)
        elif part == _CONTRAST:
            enhance_contrast(source, target, factor, scratch.luma_sum)
        else:
            enhance_color(source, target, factor)
        current = 1 - current
        cuda.syncthreads()
    if base[4] != 0:
        rotate(rows[size : 2 * size], rows[:size], s.height, s.width, base[4], rotation_table)
        cuda.syncthreads()


@cuda.jit(device=True)
def draw_view(view, index, s, drawn):
    """Draw the parameters of AugMix view `view` into `drawn`."""
    ops, magnitudes, exponentials, weights = drawn.ops, drawn.magnitudes, drawn.exponentials, drawn.weights
    lane = thread_number()
    while lane < s.mixture_width * s.max_depth:
        chain, step = lane // s.max_depth, lane % s.max_depth
        mix_weight, strength = draws.draw_mix(view, index, s)
        exponential, depth = draws.draw_chain(view, chain, index, s)
        op, magnitude = draws.draw_operation(view, chain, step, index, strength, s)
        ops[lane] = op if step < depth else NO_OPERATION
        magnitudes[lane] = magnitude
        if step == 0:
            exponentials[chain] = exponential
        if lane == 0:
            weights[s.mixture_width] = mix_weight
        lane += num_threads()
    cuda.syncthreads()
    chain = thread_number()
    while chain < s.mixture_width:
        total = np.float32(0)
        for other in range(s.mixture_width):
            total += exponentials[other]
        weights[chain] = draws.chain_share(exponentials[chain], total, s.mixture_width) / np.float32(255)
        chain += num_threads()
    cuda.syncthreads()


@cuda.jit(device=True)
def run_chains(s, rows, drawn, scratch, rotation_table):
    """Apply the operations of every chain w, from the clean view, row 0, through row 1 to row 2 + w."""
    ops, magnitudes = drawn.ops, drawn.magnitudes
    size = 3 * s.height * s.width
    for w in range(s.mixture_width):
        depth = 0
        while depth < s.max_depth and ops[w * s.max_depth + depth] != NO_OPERATION:
            depth += 1
        start = 0  # of the row that contains the chain so far
        for d in range(depth):
            source = rows[start : start + size]
            start = size * (2 + w if (depth - d) % 2 == 1 else 1)
            target = rows[start : start + size]
            lane = w * s.max_depth + d
            apply_operation(ops[lane], magnitudes[lane], source, target, s.height, s.width, scratch, rotation_table)
            cuda.syncthreads()


@cuda.jit(device=True)
def _store(out, k, value, bfloat16):
    """Store a float32 in out[k], rounded to nearest, ties to even. Inlining makes `bfloat16` a constant."""
    if bfloat16:
        out[np.uint32(k)] = bfloat16_bits(value)
    else:
        out[np.uint32(k)] = value


@cuda.jit(device=True)
def store_clean(rows, out, bfloat16):
    """Store the clean view, row 0, in [0, 1]."""
    k = thread_number()
    while k < out.size:
        _store(out, k, unit(rows[np.uint32(k)]), bfloat16)
        k += num_threads()


@cuda.jit(device=True)
def store_mixture(rows, weights, num_chains, out, bfloat16):
    """Store (1 - m) x + m sum_w (weight_w / 255) chain_w, in the CPU engine's order of operations."""
    mix_weight = weights[num_chains]
    rest = np.float32(1) - mix_weight
    k = thread_number()
    while k < out.size:
        mixture = np.float32(0)
        w = 0
        while w < num_chains:
            mixture += weights[np.uint32(w)] * np.float32(rows[np.uint32((2 + w) * out.size + k)])
            w += 1
        _store(out, k, rest * unit(rows[np.uint32(k)]) + mix_weight * mixture, bfloat16)
        k += num_threads()


@cuda.jit(device=True)
def store_noisy(view, index, s, rows, out, bfloat16):
    """Store x + sigma z, the elements of z in the order of `rng.standard_normal`: block b gives b, b + Q, and so on."""
    sigma = draws.draw_sigma(view, index, s.epoch, s.key_0, s.key_1, s.sigma_max)
    word = stream_view_word(STREAM_NOISE, view)
    quarter = (out.size + 3) // 4
    b = thread_number()
    while b < quarter:
        w0, w1, w2, w3 = philox4x32(b, word, index, s.epoch, s.key_0, s.key_1)
        for pair in range(2):  # the simulator needs the casts: there, compiled functions return Python's floats
            z0, z1 = normal_pair(w0 if pair == 0 else w2, w1 if pair == 0 else w3)
            k = 2 * pair * quarter + b
            if k < out.size:
                _store(out, k, np.float32(unit(rows[np.uint32(k)])) + np.float32(sigma * z0), bfloat16)
            k += quarter
            if k < out.size:
                _store(out, k, np.float32(unit(rows[np.uint32(k)])) + np.float32(sigma * z1), bfloat16)
        b += num_threads()


def _make_kernel(bfloat16: bool, in_shared: bool) -> Callable:
    """Return the kernel's source. Its constants are plain values, by which numba's cache on disk knows the kernel."""

    def make_views(images, indices, s, groups, rotation_table, global_rows, out):
        drawn = Drawn(
            cuda.shared.array(5, types.int32),
            cuda.shared.array(3, types.float32),
            cuda.shared.array(_MAX_OPERATIONS, types.int32),
            cuda.shared.array(_MAX_OPERATIONS, types.float64),
            cuda.shared.array(MAX_WIDTH, types.float32),
            cuda.shared.array(_MAX_WEIGHTS, types.float32),
        )
        scratch = Scratch(
            cuda.shared.array(BINS, types.uint8),
            cuda.shared.array(BINS, types.int32),
            cuda.shared.array((3, SEGMENTS), types.int32),
            cuda.shared.array(1, types.int32),
        )
        rows = cuda.shared.array(0, types.uint8) if in_shared else global_rows[cuda.blockIdx.x]
        batch = images.shape[0]
        item = cuda.blockIdx.x
        while item < batch * groups:
            i, view = item // groups, item % groups
            index = indices[i]
            base_transform(images[i], index, s, rows, drawn, scratch, rotation_table)
            while view <= s.num_augmix + s.num_noise:
                place = out[view * batch + i]
                if view == 0:
                    store_clean(rows, place, bfloat16)
                elif view <= s.num_augmix:
                    draw_view(view - 1, index, s, drawn)
                    run_chains(s, rows, drawn, scratch, rotation_table)
                    store_mixture(rows, drawn.weights, s.mixture_width, place, bfloat16)
                else:
                    store_noisy(view - 1 - s.num_augmix, index, s, rows, place, bfloat16)
                view += groups
                cuda.syncthreads()
            item += cuda.gridDim.x

    return make_views


def kernel_source(element: str, in_shared: bool) -> tuple[Callable, Any, tuple[int, int]]:
    """Return a kernel's Python function, its signature and its launch bounds, as `compiling.jit_kernel` takes them.

    The kernel takes images uint8 [B, H W 3], indices int64 [B], draws.Settings, the number of groups,
    pixel.rotation_table(), the uint8 array of shape `Launch.scratch_shape`, and out [V B, H W 3] of the element's type;
    all arrays contiguous. Elements of bfloat16 are passed as their bits, uint16.
    """
    arguments = (
        types.uint8[:, ::1],
        types.int64[::1],
        _SETTINGS,
        types.int64,
        types.float64[:, ::1],
        types.uint8[:, ::1],
        ELEMENTS[element][:, ::1],
    )
    kernel = _make_kernel(element == "bfloat16", in_shared)
    return kernel, types.void(*arguments), (BLOCK[0] * BLOCK[1], _BLOCKS_PER_SM)


@functools.cache
def views_kernel(element: str, in_shared: bool, device: int) -> Any:
    """Return the compiled kernel for the current device, whose number is `device`."""
    return jit_kernel(*kernel_source(element, in_shared))

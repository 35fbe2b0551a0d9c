"""The CUDA engine: every view of a batch, drawn and made in one launch; bit for bit the views of `augmix_cpu`.

How the work lies on the device:

    block       one image and every `groups`-th of its views: it makes the clean view once, then its views in turn.
                As many groups as fill the device, since each makes the clean view again.
    row         an image, uint8 [H W 3]. A block has 2 + W: the clean view, a spare one, and the chains' ends. An
                operation reads one row and writes another; of a chain's every second writes the spare row, and the last
                the chain's own. So mixing reads all chains at once, and keeps no sums.
    memory      rows lie in shared memory where they fit (32x32: 15 KiB of 3 chains), else in `scratch`, for which the
                grid is made small enough: its blocks then take several images each, one after another.
    draws       a thread for each operation of a view (`draws`, Philox: no state, no order), into shared memory.
    output      rounded from float32 when it is stored, threads side by side: coalesced.

Nothing here needs a GPU until a kernel is asked for, and in numba's simulator none then.

Legend: V views, B batch, J AugMix views, N noise views, W chains, D operations of a chain, G groups, C H W image.
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
from fastmagn_kernels.random.draws import MAX_DEPTH, MAX_WIDTH, NO_OPERATION
from fastmagn_kernels.random.rng import STREAM_NOISE, normal_pair, philox4x32, stream_view_word

BLOCK = (32, 8)  # a warp for a row of CIFAR's images
SCRATCH_BYTES = 60 * 2**20
MAX_PIXELS = 2**23  # of an image: the sum of its luma is an int32
_SHARED_BYTES = 40 * 2**10  # for rows; 48 KiB less the kernel's own arrays, 6 KiB
# Of 256 threads, 4 blocks fit a multiprocessor's registers (64 a thread; what spills at 64 is in no pixel's loop), and
# for these its shared memory. A batch of 512 on 132 multiprocessors is then one wave.
_BLOCKS_PER_SM = 4
_WANTED_BLOCKS_PER_SM = 3

_MAX_OPERATIONS = MAX_WIDTH * MAX_DEPTH
_MAX_WEIGHTS = MAX_WIDTH + 1
_BRIGHTNESS, _CONTRAST = 0, 1
_ONE_OVER_765 = np.float32(1 / 765)


class Settings(NamedTuple):
    """All that the views depend on besides images and indices; the fields as `ViewParams` and `draws` have them."""

    height: int
    width: int
    num_augmix: int
    num_noise: int
    groups: int
    epoch: int
    key_0: np.uint32
    key_1: np.uint32
    padding_px: int
    horizontal_flip: bool
    color_jitter: float
    max_angle: int
    aug_severity: int
    random_aug_severity: bool
    mixture_width: int
    mixture_depth: int
    max_depth: int
    num_ops: int
    sigma_max: float


_FIELD_TYPES = {int: types.int64, bool: types.boolean, float: types.float64, np.uint32: types.uint32}
_SETTINGS = types.NamedTuple([_FIELD_TYPES[field] for field in Settings.__annotations__.values()], Settings)


@jit
def unit(value):
    """uint8 / 255, float32, rounded to nearest: without the division, a third of the time of storing a view.

    3 v is exact, and float32(1 / 765) so near to 1 / 765 that the product rounds as v / 255 for each of the 256 values.
    """
    return np.float32(3) * np.float32(value) * _ONE_OVER_765


@jit
def bfloat16_bits(value):
    """float32, finite, to the uint16 of the nearest bfloat16, ties to even."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


# Element of the views -> its type in the kernel. numba has no arrays of bfloat16: these are their bits.
ELEMENTS = {"float32": types.float32, "float16": types.float16, "bfloat16": types.uint16}


class Launch(NamedTuple):
    """How a batch is launched: grid, groups (G), bytes of shared memory, and the shape of uint8 `scratch`."""

    blocks: int
    groups: int
    shared_bytes: int
    scratch_shape: tuple[int, int]

    @property
    def in_shared(self) -> bool:
        """Whether the rows lie in shared memory."""
        return self.shared_bytes > 0


def plan_launch(
    batch: int, num_views: int, height: int, width: int, mixture_width: int, num_sms: int, in_shared: bool | None = None
) -> Launch:
    """Choose the launch for a batch on a device of `num_sms` multiprocessors; rows in shared memory where they fit."""
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
    """Which part of the colour jitter comes at `step`: the rows of fastmagn.augment.params.JITTER_ORDERS, computed."""
    first = order // 2
    low = 1 if first == 0 else 0
    high = 3 - first - low
    if step == 0:
        return first
    return low if (step == 1) == (order % 2 == 0) else high


@cuda.jit(device=True)
def base_transform(image, index, s, rows, base, factors, luma_sum, rotation_table):
    """Draw, crop, flip, jitter, rotate: the clean view into row 0. `base` int32 [5], `factors` float32 [3]: shared."""
    size = 3 * s.height * s.width
    if thread_number() == 0:
        x, y, flip, order, brightness, contrast, saturation, angle = draws.draw_base(
            index, s.epoch, s.key_0, s.key_1, s.padding_px, s.horizontal_flip, s.color_jitter, s.max_angle
        )
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
            enhance_contrast(source, target, factor, luma_sum)
        else:
            enhance_color(source, target, factor)
        current = 1 - current
        cuda.syncthreads()
    if base[4] != 0:
        rotate(rows[size : 2 * size], rows[:size], s.height, s.width, base[4], rotation_table)
        cuda.syncthreads()


@cuda.jit(device=True)
def draw_view(view, index, s, ops, magnitudes, exponentials, weights):
    """AugMix view `view`'s draws, shared: ops int32 and magnitudes float64 [W D]; weights float32 [W + 1], each chain's
    divided by 255 and then the mix weight."""
    lane = thread_number()
    while lane < s.mixture_width * s.max_depth:
        chain, step = lane // s.max_depth, lane % s.max_depth
        mix_weight, strength = draws.draw_mix(
            view, index, s.epoch, s.key_0, s.key_1, s.aug_severity, s.random_aug_severity
        )
        exponential, depth = draws.draw_chain(view, chain, index, s.epoch, s.key_0, s.key_1, s.mixture_depth)
        op, magnitude = draws.draw_operation(
            view, chain, step, index, s.epoch, s.key_0, s.key_1, s.num_ops, strength, s.height, s.width
        )
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
def run_chains(s, rows, ops, magnitudes, rotation_table, tables, histograms, segments, luma_sum):
    """Every chain from the clean view, row 0, to row 2 + w, through row 1."""
    size = 3 * s.height * s.width
    for w in range(s.mixture_width):
        depth = 0
        while depth < s.max_depth and ops[w * s.max_depth + depth] != NO_OPERATION:
            depth += 1
        start = 0  # of the row with the chain so far
        for d in range(depth):
            source = rows[start : start + size]
            start = size * (2 + w if (depth - d) % 2 == 1 else 1)
            target = rows[start : start + size]
            lane = w * s.max_depth + d
            apply_operation(
                ops[lane], magnitudes[lane], source, target, s.height, s.width, rotation_table, tables, histograms,
                segments, luma_sum,
            )  # fmt: skip
            cuda.syncthreads()


@cuda.jit(device=True)
def _store(out, k, value, bfloat16):
    """out[k] = float32 `value`, rounded to nearest, ties to even. `bfloat16` is a constant once this is inlined."""
    if bfloat16:
        out[np.uint32(k)] = bfloat16_bits(value)
    else:
        out[np.uint32(k)] = value


@cuda.jit(device=True)
def store_clean(rows, out, bfloat16):
    """The clean view, row 0, in [0, 1]."""
    k = thread_number()
    while k < out.size:
        _store(out, k, unit(rows[np.uint32(k)]), bfloat16)
        k += num_threads()


@cuda.jit(device=True)
def store_mixture(rows, weights, num_chains, out, bfloat16):
    """(1 - m) x + m sum_w (weight_w / 255) chain_w, in the CPU engine's order of operations."""
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
    """x + sigma z; z's elements as `rng.standard_normal` has them: block b gives b, b + Q, b + 2Q, b + 3Q."""
    sigma = draws.draw_sigma(view, index, s.epoch, s.key_0, s.key_1, s.sigma_max)
    word = stream_view_word(STREAM_NOISE, view)
    quarter = (out.size + 3) // 4
    b = thread_number()
    while b < quarter:
        w0, w1, w2, w3 = philox4x32(b, word, index, s.epoch, s.key_0, s.key_1)
        for pair in range(2):  # the simulator needs the casts: compiled functions return it Python's floats
            z0, z1 = normal_pair(w0 if pair == 0 else w2, w1 if pair == 0 else w3)
            k = 2 * pair * quarter + b
            if k < out.size:
                _store(out, k, np.float32(unit(rows[np.uint32(k)])) + np.float32(sigma * z0), bfloat16)
            k += quarter
            if k < out.size:
                _store(out, k, np.float32(unit(rows[np.uint32(k)])) + np.float32(sigma * z1), bfloat16)
        b += num_threads()


def _make_kernel(bfloat16: bool, in_shared: bool) -> Callable:
    """The kernel's source. Its constants are plain values, since numba's cache on disk knows a kernel by them."""

    def make_views(images, indices, s, rotation_table, scratch, out):
        base = cuda.shared.array(5, types.int32)
        factors = cuda.shared.array(3, types.float32)
        ops = cuda.shared.array(_MAX_OPERATIONS, types.int32)
        magnitudes = cuda.shared.array(_MAX_OPERATIONS, types.float64)
        exponentials = cuda.shared.array(MAX_WIDTH, types.float32)
        weights = cuda.shared.array(_MAX_WEIGHTS, types.float32)
        tables = cuda.shared.array(BINS, types.uint8)
        histograms = cuda.shared.array(BINS, types.int32)
        segments = cuda.shared.array((3, SEGMENTS), types.int32)
        luma_sum = cuda.shared.array(1, types.int32)
        rows = cuda.shared.array(0, types.uint8) if in_shared else scratch[cuda.blockIdx.x]
        batch = images.shape[0]
        item = cuda.blockIdx.x
        while item < batch * s.groups:
            i, view = item // s.groups, item % s.groups
            index = indices[i]
            base_transform(images[i], index, s, rows, base, factors, luma_sum, rotation_table)
            while view <= s.num_augmix + s.num_noise:
                place = out[view * batch + i]
                if view == 0:
                    store_clean(rows, place, bfloat16)
                elif view <= s.num_augmix:
                    draw_view(view - 1, index, s, ops, magnitudes, exponentials, weights)
                    run_chains(s, rows, ops, magnitudes, rotation_table, tables, histograms, segments, luma_sum)
                    store_mixture(rows, weights, s.mixture_width, place, bfloat16)
                else:
                    store_noisy(view - 1 - s.num_augmix, index, s, rows, place, bfloat16)
                view += s.groups
                cuda.syncthreads()
            item += cuda.gridDim.x

    return make_views


def kernel_source(element: str, in_shared: bool) -> tuple[Callable, Any, tuple[int, int]]:
    """A kernel's Python function, its signature and its launch bounds, as `compiling_cuda.jit_kernel` takes them.

    The kernel takes images uint8 [B, H W 3], indices int64 [B], Settings, pixel.rotation_table(), `Launch`'s scratch,
    and out [V B, H W 3] of the element's type; all contiguous. Elements of bfloat16 are passed as their bits, uint16.
    """
    arguments = (
        types.uint8[:, ::1],
        types.int64[::1],
        _SETTINGS,
        types.float64[:, ::1],
        types.uint8[:, ::1],
        ELEMENTS[element][:, ::1],
    )
    kernel = _make_kernel(element == "bfloat16", in_shared)
    return kernel, types.void(*arguments), (BLOCK[0] * BLOCK[1], _BLOCKS_PER_SM)


@functools.cache
def views_kernel(element: str, in_shared: bool, device: int) -> Any:
    """The compiled kernel, for the current device, whose number is `device`."""
    return jit_kernel(*kernel_source(element, in_shared))

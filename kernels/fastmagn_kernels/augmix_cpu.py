"""The CPU engine: base transform, AugMix and noise of a batch, parallel over its images.

Images come and views go channels last; between, a thread works on planar rows of its own (see
`operations_cpu`).

Legend: V views, B batch, J AugMix views, N noise views, W chains, D operations of a chain.
"""

import functools

import numba
import numpy as np
from numba import prange

from fastmagn_kernels import draws, operations_cpu
from fastmagn_kernels.compiling import jit, jit_uncounted
from fastmagn_kernels.geometry_cpu import BLOCK, rotate
from fastmagn_kernels.operations_cpu import (
    apply_operation,
    enhance_brightness,
    enhance_color,
    enhance_contrast,
    thread_scratch,
)
from fastmagn_kernels.rng import STREAM_NOISE, standard_normal

_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)
# jitter_order -> its three parts; the order of fastmagn.augment.params.JITTER_ORDERS.
_JITTER_ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], np.int64)
_FIRST_CHAIN_ROW = 2  # after the clean view's and the spare one
_CHAINS_AT_ONCE = operations_cpu.NUM_ROWS - _FIRST_CHAIN_ROW  # the usual width; their sum stays in registers


@functools.lru_cache(maxsize=1)
def make_scratch(height: int, width: int) -> operations_cpu.Scratch:
    """The memory of all threads, for images of one size; kept, since kernels hold the GIL: no two use it at once."""
    return operations_cpu.make_scratch(numba.config.NUMBA_NUM_THREADS, height, width)


@jit_uncounted
def crop(source, target, height, width, dx, dy, mirror):
    """[H W 3] -> [3 H W]: target(x, y) = source(x + dx, y + dy), black outside; `mirror` flips the result."""
    size = height * width
    first = min(max(0, -dx), width)  # columns first..last - 1 lie inside the source
    last = max(min(width, width - dx), first)
    count = last - first
    if count < width or dy != 0:
        target[:] = 0
    start = width - last if mirror else first
    for y in range(max(0, -dy), min(height, height - dy)):
        inside = source[3 * ((y + dy) * width + first + dx) :]
        red = target[y * width + start :]
        green = target[size + y * width + start :]
        blue = target[2 * size + y * width + start :]
        if mirror:
            for x in range(count):
                k = count - 1 - x
                red[k], green[k], blue[k] = inside[3 * x], inside[3 * x + 1], inside[3 * x + 2]
        else:
            for x in range(count):
                red[x], green[x], blue[x] = inside[3 * x], inside[3 * x + 1], inside[3 * x + 2]


@jit_uncounted
def base_transform(
    source, rows, height, width, dx, dy, flip, order, brightness, contrast, saturation, angle, rotation_table, scratch
):  # fmt: skip
    """Crop, flip, jitter, rotate, in the first two of `rows`. Returns which of them is the clean view."""
    crop(source, rows[0], height, width, dx, dy, flip)
    current = 0
    for step in range(3):
        part = _JITTER_ORDERS[order, step]
        factor = brightness if part == _BRIGHTNESS else (contrast if part == _CONTRAST else saturation)
        if factor == np.float32(1):
            continue
        following = 1 - current
        if part == _BRIGHTNESS:
            enhance_brightness(rows[current], rows[following], factor)
        elif part == _CONTRAST:
            enhance_contrast(rows[current], rows[following], factor)
        else:
            enhance_color(rows[current], rows[following], factor, scratch.channels)
        current = following
    if angle != 0:
        rotate(rows[current], rows[1 - current], height, width, angle, rotation_table, scratch)
        current = 1 - current
    return current


@jit_uncounted
def interleave(planes, pixels, count):
    """A block's planes, float32 [3 BLOCK], to as many pixels, float32 [count 3]."""
    for k in range(count):
        pixels[3 * k] = planes[k]
        pixels[3 * k + 1] = planes[BLOCK + k]
        pixels[3 * k + 2] = planes[2 * BLOCK + k]


@jit_uncounted
def to_float(clean, mixed, out):
    """The clean view in [0, 1]."""
    size = clean.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        for c in range(3):
            plane, block = clean[c * size + start :], mixed[c * BLOCK :]
            for k in range(count):
                block[k] = np.float32(plane[k]) / np.float32(255)
        interleave(mixed, out[3 * start :], count)


@jit_uncounted
def mix_plane(clean, first, second, third, weights, mixed, count, restart, finish):
    """A part of one plane, to `mixed`: the chains' sum, on from what is there unless `restart`; to `finish`, mixed with
    the clean view. The order of operations is the CUDA engine's, too, whose views are the same bits.
    """
    of_first, of_second, of_third, mix_weight = weights
    rest = np.float32(1) - mix_weight
    for k in range(count):
        total = np.float32(0) if restart else mixed[k]
        total += of_first * np.float32(first[k])
        total += of_second * np.float32(second[k])
        total += of_third * np.float32(third[k])
        mixed[k] = rest * (np.float32(clean[k]) / np.float32(255)) + mix_weight * total if finish else total


@jit_uncounted
def mix(clean, first, second, third, weights, mixed, out, restart, finish):
    """`mix_plane` for whole images, between which `out`, float32 [H W 3], keeps the sum."""
    size = clean.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        pixels = out[3 * start :]
        if not restart:
            for k in range(count):
                for c in range(3):
                    mixed[c * BLOCK + k] = pixels[3 * k + c]
        for c in range(3):
            k0 = c * size + start
            planes = clean[k0:], first[k0:], second[k0:], third[k0:]
            mix_plane(*planes, weights, mixed[c * BLOCK :], count, restart, finish)
        interleave(mixed, pixels, count)


@jit_uncounted
def chain_end(ops, chain_weights, w, clean):
    """The row where chain w ends (clean if it has no operation) and its weight / 255 (0 if there is no such chain)."""
    if w >= ops.shape[0]:
        return clean, np.float32(0)
    weight = chain_weights[w] / np.float32(255)
    for d in range(ops.shape[1]):
        if ops[w, d] != draws.NO_OPERATION:
            return _FIRST_CHAIN_ROW + w % _CHAINS_AT_ONCE, weight
    return clean, weight


@jit_uncounted
def augmix_view(
    rows, clean, out, height, width, ops, magnitudes, chain_weights, mix_weight, rotation_table, scratch
):  # fmt: skip
    """One AugMix view into `out`, float32 [H W 3]; ops and magnitudes [W, D], rows[clean] the clean view."""
    num_chains, max_depth = ops.shape
    for w in range(num_chains):
        row = _FIRST_CHAIN_ROW + w % _CHAINS_AT_ONCE
        left = 0
        for d in range(max_depth):
            left += ops[w, d] != draws.NO_OPERATION
        current = clean
        for d in range(max_depth):
            if ops[w, d] != draws.NO_OPERATION:
                left -= 1
                following = row if left % 2 == 0 else 1 - clean  # so that the last one ends in the chain's row
                apply_operation(
                    ops[w, d], magnitudes[w, d], rows[current], rows[following], height, width, rotation_table, scratch
                )  # fmt: skip
                current = following
        group, finish = w - w % _CHAINS_AT_ONCE, w == num_chains - 1
        if finish or w == group + _CHAINS_AT_ONCE - 1:
            first, of_first = chain_end(ops, chain_weights, group, clean)
            second, of_second = chain_end(ops, chain_weights, group + 1, clean)
            third, of_third = chain_end(ops, chain_weights, group + 2, clean)
            weights = (of_first, of_second, of_third, mix_weight)
            mix(rows[clean], rows[first], rows[second], rows[third], weights, scratch.mixed, out, group == 0, finish)


@jit_uncounted
def image_views(
    i, images, height, width, padding_px, crop_x_px, crop_y_px, flip, jitter_order, brightness, contrast, saturation,
    angle, ops, magnitudes, chain_weights, mix_weight, rotation_table, scratch, thread, out,
):  # fmt: skip
    """The clean and AugMix views of image `i`; arguments as in `make_views_batch`."""
    batch, num_augmix = images.shape[0], ops.shape[0]
    own = thread_scratch(scratch, thread)
    clean = base_transform(
        images[i], own.rows, height, width, crop_x_px[i] - padding_px, crop_y_px[i] - padding_px, flip[i],
        jitter_order[i], brightness[i], contrast[i], saturation[i], angle[i], rotation_table, own,
    )  # fmt: skip
    to_float(own.rows[clean], own.mixed, out[i])
    for j in range(num_augmix):
        augmix_view(
            own.rows, clean, out[(1 + j) * batch + i], height, width, ops[j, i], magnitudes[j, i],
            chain_weights[j, i], mix_weight[j, i], rotation_table, own,
        )  # fmt: skip


@jit(parallel=True)
def make_views_batch(
    images, height, width, padding_px, crop_x_px, crop_y_px, flip, jitter_order, brightness, contrast, saturation,
    angle, drawn, distributions, ops, magnitudes, chain_weights, mix_weight, sigma, indices, epoch, key_0, key_1,
    rotation_table, scratch, out,
):  # fmt: skip
    """All views of a batch: images uint8 [B, H W 3] -> out float32 [V B, H W 3]: clean | AugMix x J | noise x N.

    The parameters are `fastmagn.augment.params.ViewParams`' arrays; `scratch` is `make_scratch`'s. Unless they are
    `drawn`, AugMix's arrays are filled here, by the `distributions` that `draws.draw_augmix` has.
    """
    batch = images.shape[0]
    num_augmix, num_noise = ops.shape[0], sigma.shape[0]
    aug_severity, random_aug_severity, mixture_depth, num_ops = distributions
    for i in prange(batch):
        if not drawn:
            draws.draw_augmix(
                i, indices, epoch, key_0, key_1, aug_severity, random_aug_severity, mixture_depth, num_ops, height,
                width, ops, magnitudes, chain_weights, mix_weight,
            )  # fmt: skip
        image_views(
            i, images, height, width, padding_px, crop_x_px, crop_y_px, flip, jitter_order, brightness, contrast,
            saturation, angle, ops, magnitudes, chain_weights, mix_weight, rotation_table, scratch,
            numba.get_thread_id(), out,
        )  # fmt: skip
        for n in range(num_noise):
            noisy = out[(1 + num_augmix + n) * batch + i]
            standard_normal(noisy, STREAM_NOISE, n, indices[i], epoch, key_0, key_1)
            clean_out, scale = out[i], sigma[n, i]
            for k in range(noisy.size):
                noisy[k] = clean_out[k] + scale * noisy[k]

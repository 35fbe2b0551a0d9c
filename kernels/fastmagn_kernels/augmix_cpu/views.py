"""The CPU engine: base transform, AugMix and noise of a batch, parallel over its images.

Images come and views go channels last; between, a thread works on planar rows of its own (see
`operations_cpu`).

Legend: V views, B batch, J AugMix views, N noise views, W chains, D operations of a chain.
"""

import functools

import numba
import numpy as np
from numba import prange, types
from numba.extending import intrinsic

from fastmagn_kernels.augmix_cpu import operations
from fastmagn_kernels.augmix_cpu.geometry import BLOCK, copy, rotate, translate
from fastmagn_kernels.augmix_cpu.layout import mirror, pixels_to_planes, planes_to_pixels, stream
from fastmagn_kernels.augmix_cpu.operations import (
    apply_operation,
    enhance_brightness,
    enhance_color,
    enhance_contrast,
    thread_scratch,
)
from fastmagn_kernels.compiling import jit, jit_uncounted
from fastmagn_kernels.pixel import unit
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.rng import STREAM_NOISE, standard_normal

_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)
# jitter_order -> its three parts; the order of fastmagn.augment.params.JITTER_ORDERS.
_JITTER_ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], np.int64)
_FIRST_CHAIN_ROW = 2  # after the clean view's and the spare one
_CHAINS_AT_ONCE = operations.NUM_ROWS - _FIRST_CHAIN_ROW  # the usual width; their sum stays in registers


@functools.lru_cache(maxsize=1)
def make_scratch(height: int, width: int) -> operations.Scratch:
    """The memory of all threads, for images of one size; kept, since kernels hold the GIL: no two use it at once."""
    return operations.make_scratch(numba.config.NUMBA_NUM_THREADS, height, width)


@jit_uncounted
def base_transform(
    source, rows, height, width, dx, dy, flip, order, brightness, contrast, saturation, angle, rotations, scratch
):  # fmt: skip
    """Crop, flip, jitter, rotate, in the first two of `rows`. Returns which of them is the clean view."""
    current = 0
    pixels_to_planes(source, rows[current])
    if dx != 0 or dy != 0:
        translate(rows[current], rows[1 - current], height, width, dx, dy)
        current = 1 - current
    if flip:
        mirror(rows[current], rows[1 - current], width)
        current = 1 - current
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
        rotate(rows[current], rows[1 - current], height, width, angle, rotations.matrices, scratch)
        current = 1 - current
    return current


@jit_uncounted
def to_float(clean, pixels, mixed, out):
    """The clean view, planar uint8 [3 H W], in [0, 1]: float32 [H W 3]."""
    size = clean.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        planes_to_pixels(clean, start, count, pixels, 0)
        for k in range(3 * count):
            mixed[k] = unit(pixels[k])
        stream(mixed, out[3 * start :], 3 * count)


@jit_uncounted
def mix_block(pixels, weights, mixed, count, restart, finish):
    """A block of four images, uint8 [4, 3 BLOCK]: the clean view and three chains, whose weighted sum goes to `mixed`,
    on from what is there unless `restart`; to `finish`, mixed with the clean view. The order of operations is the CUDA
    engine's, too, whose views are the same bits.
    """
    of_first, of_second, of_third, mix_weight = weights
    rest = np.float32(1) - mix_weight
    for k in range(count):
        total = np.float32(0) if restart else mixed[k]
        total += of_first * np.float32(pixels[3 * BLOCK + k])
        total += of_second * np.float32(pixels[6 * BLOCK + k])
        total += of_third * np.float32(pixels[9 * BLOCK + k])
        mixed[k] = rest * unit(pixels[k]) + mix_weight * total if finish else total


@jit_uncounted
def mix(clean, first, second, third, weights, pixels, mixed, out, restart, finish):
    """`mix_block` for whole images, planar uint8 [3 H W], into `out`, float32 [H W 3], which keeps the sum between."""
    size = clean.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        planes_to_pixels(clean, start, count, pixels, 0)
        planes_to_pixels(first, start, count, pixels, 3 * BLOCK)
        planes_to_pixels(second, start, count, pixels, 6 * BLOCK)
        planes_to_pixels(third, start, count, pixels, 9 * BLOCK)
        view = out[3 * start : 3 * (start + count)]
        if not restart:
            copy(view, mixed[: 3 * count])
        mix_block(pixels, weights, mixed, 3 * count, restart, finish)
        stream(mixed, view, 3 * count)


@jit_uncounted
def add_noise(clean, pixels, normals, scale):
    """To `normals`, float32 [H W 3], times `scale`, the clean view, planar uint8 [3 H W], in [0, 1]."""
    size = clean.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        planes_to_pixels(clean, start, count, pixels, 0)
        noisy = normals[3 * start :]
        for k in range(3 * count):
            noisy[k] = unit(pixels[k]) + scale * noisy[k]


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
    rows, clean, out, height, width, ops, magnitudes, chain_weights, mix_weight, rotations, scratch
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
                    ops[w, d], magnitudes[w, d], rows[current], rows[following], height, width, rotations, scratch
                )  # fmt: skip
                current = following
        group, finish = w - w % _CHAINS_AT_ONCE, w == num_chains - 1
        if finish or w == group + _CHAINS_AT_ONCE - 1:
            first, of_first = chain_end(ops, chain_weights, group, clean)
            second, of_second = chain_end(ops, chain_weights, group + 1, clean)
            third, of_third = chain_end(ops, chain_weights, group + 2, clean)
            weights = (of_first, of_second, of_third, mix_weight)
            mix(
                rows[clean],
                rows[first],
                rows[second],
                rows[third],
                weights,
                scratch.pixels,
                scratch.mixed,
                out,
                group == 0,
                finish,
            )


@jit_uncounted
def image_views(
    i, images, height, width, padding_px, crop_x_px, crop_y_px, flip, jitter_order, brightness, contrast, saturation,
    angle, ops, magnitudes, chain_weights, mix_weight, rotations, scratch, thread, out,
):  # fmt: skip
    """The clean and AugMix views of image `i`; arguments as in `make_views_batch`. Returns the clean view's row."""
    batch, num_augmix = images.shape[0], ops.shape[0]
    own = thread_scratch(scratch, thread)
    clean = base_transform(
        images[i], own.rows, height, width, crop_x_px[i] - padding_px, crop_y_px[i] - padding_px, flip[i],
        jitter_order[i], brightness[i], contrast[i], saturation[i], angle[i], rotations, own,
    )  # fmt: skip
    to_float(own.rows[clean], own.pixels, own.mixed, out[i])
    for j in range(num_augmix):
        augmix_view(
            own.rows, clean, out[(1 + j) * batch + i], height, width, ops[j, i], magnitudes[j, i],
            chain_weights[j, i], mix_weight[j, i], rotations, own,
        )  # fmt: skip
    return clean


@intrinsic
def claim(typingctx, counter):
    """Return `counter[0]`, int64, and add one to it, atomically.

    So threads share a batch as they become free. numba's `prange` gives each thread its part beforehand, and all wait
    for the slowest core.
    """

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), generate


@jit(parallel=True)
def make_views_batch(
    images, height, width, padding_px, crop_x_px, crop_y_px, flip, jitter_order, brightness, contrast, saturation,
    angle, drawn, distributions, ops, magnitudes, chain_weights, mix_weight, sigma, indices, epoch, key_0, key_1,
    rotations, scratch, next_image, out,
):  # fmt: skip
    """All views of a batch: images uint8 [B, H W 3] -> out float32 [V B, H W 3]: clean | AugMix x J | noise x N.

    The parameters are `fastmagn.augment.params.ViewParams`' arrays; `rotations` and `scratch` are what
    `make_rotations` and `make_scratch` make, `next_image` is int64 [1] and 0. Unless they are `drawn`, AugMix's arrays
    are filled here, by the `distributions` that `draws.draw_augmix` has.
    """
    batch = images.shape[0]
    num_augmix, num_noise = ops.shape[0], sigma.shape[0]
    aug_severity, random_aug_severity, mixture_depth, num_ops = distributions
    for thread in prange(scratch.rows.shape[0]):
        i = claim(next_image)
        while i < batch:
            if not drawn:
                draws.draw_augmix(
                    i, indices, epoch, key_0, key_1, aug_severity, random_aug_severity, mixture_depth, num_ops, height,
                    width, ops, magnitudes, chain_weights, mix_weight,
                )  # fmt: skip
            clean = image_views(
                i, images, height, width, padding_px, crop_x_px, crop_y_px, flip, jitter_order, brightness, contrast,
                saturation, angle, ops, magnitudes, chain_weights, mix_weight, rotations, scratch, thread, out,
            )  # fmt: skip
            for n in range(num_noise):
                noisy = out[(1 + num_augmix + n) * batch + i]
                standard_normal(noisy, STREAM_NOISE, n, indices[i], epoch, key_0, key_1)
                add_noise(scratch.rows[thread, clean], scratch.pixels[thread], noisy, sigma[n, i])
            i = claim(next_image)

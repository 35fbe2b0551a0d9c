"""The CPU engine: base transform, policy, AugMix and noise of a batch; several threads share its images.

Images arrive and views leave with their channels last; in between, a thread works on its own planar rows (see
`operations`).

Shape letters: V views, B batch, J AugMix views, N noise views, W chains, D operations of a chain, H W image.
"""

import threading
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from fastmagn_kernels.augmix_cpu import operations
from fastmagn_kernels.augmix_cpu.bilinear import rotate
from fastmagn_kernels.augmix_cpu.forms import round_to_levels
from fastmagn_kernels.augmix_cpu.geometry import BLOCK, copy, translate
from fastmagn_kernels.augmix_cpu.layout import mirror, pixels_to_planes, planes_to_pixels, stream, take_values
from fastmagn_kernels.augmix_cpu.operations import (
    apply_operation,
    enhance_brightness,
    enhance_color,
    enhance_contrast,
)
from fastmagn_kernels.compiling import jit, jit_inlined, jit_uncounted
from fastmagn_kernels.pixel import unit
from fastmagn_kernels.policy_cpu.recipe import apply_recipe, make_patch
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.draws import JITTER_ORDERS
from fastmagn_kernels.random.rng import STREAM_NOISE, standard_normal

_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)
_FIRST_CHAIN_ROW = 2  # the first two rows are the clean view and a spare row
CHAINS_AT_ONCE = operations.NUM_ROWS - _FIRST_CHAIN_ROW  # AugMix's usual width; their sum stays in registers


class Batch(NamedTuple):
    """The images of a batch and its views. What is drawn for it is in `draws.BaseParams` and `draws.AugMixParams`.

    Args:
        images: uint8 [B, H W 3].
        indices: Sample indices, int64 [B].
        sigma: Standard deviations of the noise, float32 [N, B].
        next_image: The next image that no thread has taken, int64 [1], at first 0.
        out: The views, float32 [V B, H W 3]: clean | AugMix x J | noise x N.
    """

    images: np.ndarray
    indices: np.ndarray
    sigma: np.ndarray
    next_image: np.ndarray
    out: np.ndarray


_of_thread = threading.local()


def own_scratch(height: int, width: int) -> operations.Scratch:
    """Return the calling thread's memory for images of one size; it is kept until the thread asks for another size."""
    if getattr(_of_thread, "size", None) != (height, width):
        _of_thread.size, _of_thread.scratch = (height, width), operations.make_scratch(height, width)
    return _of_thread.scratch


@jit_inlined
def base_transform(i, images, settings, base, rotations, scratch):
    """Crop, flip, jitter and rotate image `i` in the first two rows of `scratch`; return the row of the clean view."""
    rows, height, width = scratch.rows, settings.height, settings.width
    dx, dy = base.crop_x_px[i] - settings.padding_px, base.crop_y_px[i] - settings.padding_px
    order, angle = base.jitter_order[i], base.angle[i]
    brightness, contrast, saturation = base.brightness[i], base.contrast[i], base.saturation[i]
    flip, current = base.flip[i], 0
    pixels_to_planes(images[i], rows[current])
    if dx != 0 or dy != 0:
        translate(rows[current], rows[1 - current], height, width, dx, dy)
        current = 1 - current
    if flip:
        mirror(rows[current], rows[1 - current], width)
        current = 1 - current
    for step in range(3):
        part = JITTER_ORDERS[order, step]
        factor = brightness if part == _BRIGHTNESS else (contrast if part == _CONTRAST else saturation)
        if factor == np.float32(1):
            continue
        following = 1 - current
        if part == _BRIGHTNESS:
            enhance_brightness(rows[current], rows[following], factor, scratch.table)
        elif part == _CONTRAST:
            enhance_contrast(rows[current], rows[following], factor, scratch.channels, scratch.table)
        else:
            enhance_color(rows[current], rows[following], factor, scratch.channels)
        current = following
    if angle != 0:
        rotate(rows[current], rows[1 - current], height, width, angle, rotations.matrices, scratch)
        current = 1 - current
    return current


@jit_uncounted
def to_float(clean, pixels, mixed, out):
    """Store the clean view, planar uint8 [3 H W], as float32 [H W 3] in [0, 1]."""
    size = clean.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        planes_to_pixels(clean, start, count, pixels, 0)
        for k in range(3 * count):
            mixed[k] = unit(pixels[k])
        stream(mixed, out[3 * start :], 3 * count)


@jit_uncounted
def mix_block(pixels, weights, mixed, count, restart, finish):
    """Add the weighted sum of three chains to `mixed`, for a block of pixels; at `finish`, mix it with the clean view.

    `pixels`, uint8 [4, 3 BLOCK], are the clean view and the three chains. With `restart`, the sum starts at 0. The
    order of operations is that of the CUDA engine, so both engines give the same bits.
    """
    of_first, of_second, of_third, mix_weight = weights
    rest = np.float32(1) - mix_weight
    for k in range(count):
        total = np.float32(0) if restart else mixed[k]
        total += of_first * np.float32(pixels[3 * BLOCK + k])
        total += of_second * np.float32(pixels[6 * BLOCK + k])
        total += of_third * np.float32(pixels[9 * BLOCK + k])
        mixed[k] = rest * unit(pixels[k]) + mix_weight * total if finish else total


@jit_inlined
def mix(chosen, weights, scratch, levels, values, planar, restart, finish):
    """Mix whole images by `mix_block` into `levels`, uint8, rounded or, where that is empty, into `values`, float32.

    Both have the order of planes or of pixels; `values` keeps the sum until `finish`. `chosen` are four rows of
    `scratch`: those of the clean view and of three chains.
    """
    rows, pixels, mixed = scratch.rows, scratch.pixels, scratch.mixed
    clean, first, second, third = chosen
    size = max(levels.size, values.size)
    for start in range(0, size, 3 * BLOCK):
        count = min(3 * BLOCK, size - start)
        take_values(rows[clean], start, count, planar, pixels, 0)
        take_values(rows[first], start, count, planar, pixels, 3 * BLOCK)
        take_values(rows[second], start, count, planar, pixels, 6 * BLOCK)
        take_values(rows[third], start, count, planar, pixels, 9 * BLOCK)
        if not restart:
            copy(values[start : start + count], mixed[:count])
        mix_block(pixels, weights, mixed, count, restart, finish)
        if finish and levels.size > 0:
            round_to_levels(mixed, levels[start : start + count])
        else:
            stream(mixed, values[start : start + count], count)


@jit_uncounted
def add_noise(clean, pixels, normals, scale):
    """Multiply `normals`, float32 [H W 3], by `scale`, and add the clean view, planar uint8 [3 H W], in [0, 1]."""
    size = clean.size // 3
    for start in range(0, size, BLOCK):
        count = min(BLOCK, size - start)
        planes_to_pixels(clean, start, count, pixels, 0)
        noisy = normals[3 * start :]
        for k in range(3 * count):
            noisy[k] = unit(pixels[k]) + scale * noisy[k]


@jit_uncounted
def chain_end(ops, chain_weights, w, clean):
    """Return the row of chain w's end and its weight / 255.

    A chain without an operation ends in the row `clean`. A chain that does not exist has the weight 0.
    """
    if w >= ops.shape[0]:
        return clean, np.float32(0)
    weight = chain_weights[w] / np.float32(255)
    for d in range(ops.shape[1]):
        if ops[w, d] != draws.NO_OPERATION:
            return _FIRST_CHAIN_ROW + w % CHAINS_AT_ONCE, weight
    return clean, weight


@jit_inlined
def run_chain(ops, magnitudes, row, clean, settings, rotations, scratch):
    """Apply the operations of one chain, `ops` and `magnitudes` [D], to the row `clean`, so that it ends in `row`."""
    rows, left = scratch.rows, 0
    for d in range(ops.size):
        left += ops[d] != draws.NO_OPERATION
    current = clean
    for d in range(ops.size):
        if ops[d] != draws.NO_OPERATION:
            left -= 1
            following = row if left % 2 == 0 else 1 - clean
            source, target = rows[current], rows[following]
            apply_operation(ops[d], magnitudes[d], source, target, settings.height, settings.width, rotations, scratch)
            current = following


@jit_inlined
def augmix_view(j, i, clean, settings, augmix, rotations, scratch, levels, values, planar):
    """Make AugMix view `j` of image `i`, whose clean view is row `clean` of `scratch`; see `mix` for the others."""
    ops, magnitudes, chain_weights = augmix.ops[j, i], augmix.magnitudes[j, i], augmix.chain_weights[j, i]
    num_chains = ops.shape[0]
    for w in range(num_chains):
        row = _FIRST_CHAIN_ROW + w % CHAINS_AT_ONCE
        run_chain(ops[w], magnitudes[w], row, clean, settings, rotations, scratch)
        group, finish = w - w % CHAINS_AT_ONCE, w == num_chains - 1
        if finish or w == group + CHAINS_AT_ONCE - 1:
            first, of_first = chain_end(ops, chain_weights, group, clean)
            second, of_second = chain_end(ops, chain_weights, group + 1, clean)
            third, of_third = chain_end(ops, chain_weights, group + 2, clean)
            weights = (of_first, of_second, of_third, augmix.mix_weight[j, i])
            mix((clean, first, second, third), weights, scratch, levels, values, planar, group == 0, finish)


@jit_inlined
def image_views(i, batch, settings, base, augmix, rotations, scratch, recipe):
    """Make the clean view of image `i`, unless it has a noise patch, and its AugMix views; return the clean view's row.

    The arguments are those of `make_views_batch`.
    """
    num_images = batch.images.shape[0]
    clean = base_transform(i, batch.images, settings, base, rotations, scratch)
    if recipe is None:
        to_float(scratch.rows[clean], scratch.pixels, scratch.mixed, batch.out[i])
    else:
        clean = apply_recipe(i, clean, batch.indices, settings, recipe, scratch)
        if recipe.params.patched[i, 2] == 0:
            to_float(scratch.rows[clean], scratch.pixels, scratch.mixed, batch.out[i])
    for j in range(augmix.ops.shape[0]):
        view = batch.out[(1 + j) * num_images + i]
        augmix_view(j, i, clean, settings, augmix, rotations, scratch, scratch.table[:0], view, False)
    return clean


@intrinsic
def claim(typingctx, counter):
    """Return `counter[0]`, int64, and add one to it, atomically.

    So threads share a batch as they become free, and none waits for the slowest core.
    """

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, context.get_constant(types.int64, 1), "monotonic")

    return types.int64(counter), generate


@jit(nogil=True)
def make_views_batch(batch, settings, base, augmix, drawn, rotations, scratch, recipe):
    """Make the views of the images of a batch that no other thread takes; several threads may call it at once.

    Args:
        batch: The images and their views, Batch.
        settings: draws.Settings.
        base: draws.BaseParams.
        augmix: draws.AugMixParams.
        drawn: Whether `augmix` has been drawn; if not, it is drawn here.
        rotations: What `rotate.make_rotations` returns for this size.
        scratch: What `own_scratch` returns in this thread for this size.
        recipe: policies.Recipe, drawn; None compiles a kernel without one.
    """
    indices, sigma, next_image, out = batch.indices, batch.sigma, batch.next_image, batch.out
    num_images = indices.size
    num_augmix, num_noise = augmix.ops.shape[0], sigma.shape[0]
    epoch, key_0, key_1 = settings.epoch, settings.key_0, settings.key_1
    i = claim(next_image)
    while i < num_images:
        if not drawn:
            draws.draw_augmix(i, indices, settings, augmix)
        clean = image_views(i, batch, settings, base, augmix, rotations, scratch, recipe)
        if recipe is not None:
            make_patch(i, scratch.rows[clean], scratch.pixels, batch.out[i], indices[i], settings, recipe)
        for n in range(num_noise):
            noisy = out[(1 + num_augmix + n) * num_images + i]
            standard_normal(noisy, STREAM_NOISE, n, indices[i], epoch, key_0, key_1)
            add_noise(scratch.rows[clean], scratch.pixels, noisy, sigma[n, i])
        i = claim(next_image)

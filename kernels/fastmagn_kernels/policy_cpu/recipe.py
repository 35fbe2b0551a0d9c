"""A policy and an erased area on a clean view, and its noise patch; see `random.policies` for what is drawn.

The policy and the erased area change the uint8 clean view, so that every view made from it has them. The patch changes
only the floats of the clean view.
"""

import numpy as np

from fastmagn_kernels.augmix_cpu.geometry import BLOCK
from fastmagn_kernels.augmix_cpu.layout import planes_to_pixels
from fastmagn_kernels.compiling import jit, jit_inlined, jit_uncounted
from fastmagn_kernels.pixel import unit
from fastmagn_kernels.policy_cpu.operations import apply_row, fill_box
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.noises import ball_scale, clip, fixed, fraction, signed_by
from fastmagn_kernels.random.rng import (
    BLOCKS_AT_ONCE,
    STREAM_ERASING,
    STREAM_PATCH,
    fill_words,
    log_uniform,
    philox4x32,
    standard_normal,
    stream_view_word,
)


@jit_inlined
def apply_recipe(i, current, indices, settings, recipe, scratch):
    """Apply the policy and the erased area of image `i` to row `current`, 0 or 1; return the row of the result."""
    height, width, rows = settings.height, settings.width, scratch.rows
    table, params = recipe.table, recipe.params
    for step in range(params.rows.shape[1]):
        row = params.rows[i, step]
        if row != policies.NO_ROW and table.kinds[row] != policies.COPY:
            source, target = rows[current], rows[1 - current]
            apply_row(table.kinds[row], table.parameters[row], table.fill, source, target, height, width, scratch)
            current = 1 - current
    left, top, box_width, box_height = params.erased[i]
    if box_width > 0:
        image, erasing = rows[current], recipe.erasing
        if erasing.fill == policies.ERASE_NOISE:
            fill_noise(image, height, width, left, top, box_width, box_height, indices[i], settings)
        else:
            fill_box(image, height, width, left, top, box_width, box_height, erasing.colour)
    return current


@jit_uncounted
def fill_noise(image, height, width, left, top, box_width, box_height, index, settings):
    """Fill a rectangle of an image, planar uint8 [3 H W], with uniform bytes."""
    size, word = height * width, stream_view_word(STREAM_ERASING, 1)
    for y in range(top, top + box_height):
        first = 3 * (y * width + left)
        for block in range(first // 16, (first + 3 * box_width + 15) // 16):
            words = philox4x32(block, word, index, settings.epoch, settings.key_0, settings.key_1)
            for k in range(16):
                element = 16 * block + k
                if first <= element < first + 3 * box_width:
                    four = words[0] if k < 4 else (words[1] if k < 8 else (words[2] if k < 12 else words[3]))
                    value = np.uint8((np.uint32(four) >> np.uint32(8 * (k % 4))) & np.uint32(255))
                    image[(element % 3) * size + element // 3] = value


@jit
def fill_points(out, noise, words, second):
    """Fill `out`, float32 [N], with uniforms in [-1, 1), or for a ball with a signed |x|^p of a density of exp(-|x|^p).

    p is 1 or, where the sum of two exponentials is a draw of the Gamma distribution of shape 2, 1/2.
    """
    if noise == policies.LINF:
        for k in range(out.size):
            out[k] = np.float32(2) * fraction(words[k]) - np.float32(1)
        return
    for k in range(out.size):
        out[k] = -log_uniform(words[k])
    if noise == policies.L05:
        for k in range(out.size):
            out[k] -= log_uniform(second[k])
    for k in range(out.size):
        out[k] = signed_by(out[k], words[k])


@jit
def fixed_sum(values, squared):
    """Return the sum of `noises.fixed` of the sizes of `values`, float32: int64."""
    total = np.int64(0)
    for k in range(values.size):
        total += np.int64(fixed(abs(values[k]), squared))
    return total


@jit
def finish(values, noise, factor, left_out, words, others):
    """Turn points into what a patch adds, `values`, float32 [N]; for impulses, into their value or NaN."""
    if noise == policies.IMPULSE:
        for k in range(values.size):
            values[k] = fraction(others[k]) if fraction(words[k]) < factor else np.float32(np.nan)
        return
    if noise == policies.L05:
        for k in range(values.size):
            values[k] *= abs(values[k])
    for k in range(values.size):
        values[k] = np.float32(0) if fraction(others[k]) < left_out else values[k] * factor


@jit
def fill_patch_noise(out, noise, strength, left_out, index, epoch, key_0, key_1):
    """Fill `out`, float32 [H W 3], with what a patch adds to each element; for impulses, with its value or NaN.

    NaN leaves an element as it is. `out` holds all points; the words of a few blocks at once are in memory beside it.
    """
    quarter = (out.size + 3) // 4
    words = np.empty((4, min(quarter, BLOCKS_AT_ONCE)), np.uint32)
    others = np.empty_like(words)
    factor = strength
    if noise == policies.IMPULSE:
        factor = strength * (np.float32(1) - left_out)
    elif noise == policies.L2 or noise == policies.GAUSSIAN:
        standard_normal(out, STREAM_PATCH, 1, index, epoch, key_0, key_1)
    else:
        for first in range(0, quarter, BLOCKS_AT_ONCE):
            count = min(BLOCKS_AT_ONCE, quarter - first)
            fill_words(words[:, :count], first, STREAM_PATCH, 1, index, epoch, key_0, key_1)
            if noise == policies.L05:
                fill_words(others[:, :count], first, STREAM_PATCH, 3, index, epoch, key_0, key_1)
            for n in range(4):
                fill_points(out[n * quarter + first :][:count], noise, words[n], others[n])
    if noise == policies.L2 or noise == policies.L1 or noise == policies.L05:
        factor = ball_scale(noise, strength, fixed_sum(out, noise == policies.L2), index, epoch, key_0, key_1)
    for first in range(0, quarter, BLOCKS_AT_ONCE):
        count = min(BLOCKS_AT_ONCE, quarter - first)
        if noise == policies.IMPULSE:
            fill_words(words[:, :count], first, STREAM_PATCH, 1, index, epoch, key_0, key_1)
        fill_words(others[:, :count], first, STREAM_PATCH, 2, index, epoch, key_0, key_1)
        for n in range(4):
            finish(out[n * quarter + first :][:count], noise, factor, left_out, words[n], others[n])


@jit_uncounted
def add_patch(clean, pixels, out, height, width, box, impulses, clipped):
    """Store the clean view, planar uint8 [3 H W], in `out`, float32 [H W 3] in [0, 1], with its patch.

    `out` holds what `fill_patch_noise` returns; `box` is the patch's left, top, width and height.
    """
    left, top, box_width, box_height = box
    for y in range(height):
        inside = top <= y < top + box_height
        for x0 in range(0, width, BLOCK):
            count = min(BLOCK, width - x0)
            planes_to_pixels(clean, y * width + x0, count, pixels, 0)
            row = out[3 * (y * width + x0) :]
            first = 3 * min(max(left - x0, 0), count) if inside else 3 * count
            last = 3 * min(max(left + box_width - x0, 0), count) if inside else 3 * count
            for k in range(first):
                row[k] = unit(pixels[k])
            for k in range(first, last):
                value, noise = unit(pixels[k]), row[k]
                value = (value if np.isnan(noise) else noise) if impulses else value + noise
                row[k] = clip(value) if clipped else value
            for k in range(last, 3 * count):
                row[k] = unit(pixels[k])


@jit
def make_patch(i, clean, pixels, out, index, settings, recipe):
    """Store image `i`'s clean view, planar uint8 [3 H W], in `out`, float32 [H W 3], if it has a noise patch."""
    params, epoch, key_0, key_1 = recipe.params, settings.epoch, settings.key_0, settings.key_1
    box = (params.patched[i, 0], params.patched[i, 1], params.patched[i, 2], params.patched[i, 3])
    if box[2] == 0:
        return
    noise = np.int64(params.noise[i])
    fill_patch_noise(out, noise, params.strength[i], params.left_out[i], index, epoch, key_0, key_1)
    impulses, clipped = noise == policies.IMPULSE, recipe.patches.clipped
    add_patch(clean, pixels, out, settings.height, settings.width, box, impulses, clipped)

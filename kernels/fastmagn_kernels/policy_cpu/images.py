"""A policy of a batch, in the form in which the images come: without clean views."""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.augmix_cpu.forms import Forms, load_image, store_image
from fastmagn_kernels.augmix_cpu.views import claim
from fastmagn_kernels.compiling import jit, jit_inlined
from fastmagn_kernels.policy_cpu.operations import apply_row
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.policies import draw_row, draw_sub_policy


class Images(NamedTuple):
    """The images of a batch.

    Args:
        source: The images.
        target: What becomes of them, of the same kind of values, in either order.
        low: The lowest float that an image may have, float32.
        high: The highest.
        height: H, px.
        width: W, px.
        indices: Sample indices, int64 [B].
        epoch: 0..2^32 - 1.
        key_0: The low 32 bits of the seed.
        key_1: The high 32 bits of the seed.
        next_image: The next image that no thread has taken, int64 [1], at first 0.
        refused: 1 as soon as an image has floats out of range, int64 [1], at first 0; the rest is then not made.
    """

    source: Forms
    target: Forms
    low: np.float32
    high: np.float32
    height: int
    width: int
    indices: np.ndarray
    epoch: int
    key_0: np.uint32
    key_1: np.uint32
    next_image: np.ndarray
    refused: np.ndarray


@jit_inlined
def next_step(step, sub_policy, index, batch, table):
    """Return the first step from `step` on that changes the image, and its row; the number of steps if none does."""
    depth = table.steps.shape[1]
    while step < depth:
        first, count = table.steps[sub_policy, step, 0], table.steps[sub_policy, step, 1]
        row = draw_row(step, index, batch.epoch, batch.key_0, batch.key_1, first, count, table.thresholds)
        if row != policies.NO_ROW and table.kinds[row] != policies.COPY:
            return step, row
        step += 1
    return depth, np.int64(policies.NO_ROW)


@jit_inlined
def change_image(i, batch, table, scratch):
    """Apply the policy to image `i`; where levels are planar, from the image's memory to that of the result."""
    source, target, rows = batch.source, batch.target, scratch.rows
    index, depth = batch.indices[i], table.steps.shape[1]
    sub_policy = draw_sub_policy(index, batch.epoch, batch.key_0, batch.key_1, table.steps.shape[0])
    step, row = next_step(0, sub_policy, index, batch, table)
    direct = source.levels.size > 0 and source.planar and target.planar and source.channels == 3
    if not direct and not load_image(i, source, batch.low, batch.high, rows):
        batch.refused[0] = 1
        return
    image, current = source.levels[i] if direct else rows[0], 0
    while step < depth:
        following, following_row = next_step(step + 1, sub_policy, index, batch, table)
        changed = target.levels[i] if direct and following == depth else rows[1 - current]
        apply_row(
            table.kinds[row], table.parameters[row], table.fill, image, changed, batch.height, batch.width, scratch
        )
        image, current, step, row = changed, 1 - current, following, following_row
        if direct and step == depth:
            return
    store_image(image, i, target, scratch.pixels, scratch.mixed)


@jit(nogil=True)
def change_images(batch, table, scratch):
    """Apply a policy to the images of a batch that no other thread takes; several threads may call it at once.

    Args:
        batch: The images, Images.
        table: The policy, policies.Table.
        scratch: What `augmix_cpu.views.own_scratch` returns in this thread for this size.
    """
    i = claim(batch.next_image)
    while i < batch.indices.size and batch.refused[0] == 0:
        change_image(i, batch, table, scratch)
        i = claim(batch.next_image)

"""A policy of a batch uint8 -> uint8, in either memory format, without clean views and floats."""

from typing import NamedTuple

import numpy as np

from fastmagn_kernels.augmix_cpu.geometry import copy
from fastmagn_kernels.augmix_cpu.layout import pixels_to_planes, planes_to_pixels
from fastmagn_kernels.augmix_cpu.views import claim
from fastmagn_kernels.compiling import jit, jit_inlined
from fastmagn_kernels.policy_cpu.operations import apply_row
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.policies import draw_row, draw_sub_policy


class Images(NamedTuple):
    """The images of a batch.

    Args:
        images: uint8 [B, 3 H W]; planes or pixels.
        out: Likewise.
        planar: Whether both are planar: [3, H, W] rather than [H, W, 3].
        height: H, px.
        width: W, px.
        indices: Sample indices, int64 [B].
        epoch: 0..2^32 - 1.
        key_0: The low 32 bits of the seed.
        key_1: The high 32 bits of the seed.
        next_image: The next image that no thread has taken, int64 [1], at first 0.
    """

    images: np.ndarray
    out: np.ndarray
    planar: bool
    height: int
    width: int
    indices: np.ndarray
    epoch: int
    key_0: np.uint32
    key_1: np.uint32
    next_image: np.ndarray


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
    """Apply the policy to image `i`; where the image is planar, from its memory to that of the result."""
    rows, index, depth = scratch.rows, batch.indices[i], table.steps.shape[1]
    sub_policy = draw_sub_policy(index, batch.epoch, batch.key_0, batch.key_1, table.steps.shape[0])
    step, row = next_step(0, sub_policy, index, batch, table)
    if step == depth:
        copy(batch.images[i], batch.out[i])
        return
    source, current = batch.images[i], 0
    if not batch.planar:
        pixels_to_planes(source, rows[0])
        source = rows[0]
    while step < depth:
        following, following_row = next_step(step + 1, sub_policy, index, batch, table)
        target = batch.out[i] if batch.planar and following == depth else rows[1 - current]
        apply_row(
            table.kinds[row], table.parameters[row], table.fill, source, target, batch.height, batch.width, scratch
        )
        source, current, step, row = target, 1 - current, following, following_row
    if not batch.planar:
        planes_to_pixels(source, 0, batch.height * batch.width, batch.out[i], 0)


@jit(nogil=True)
def change_images(batch, table, scratch):
    """Apply a policy to the images of a batch that no other thread takes; several threads may call it at once.

    Args:
        batch: The images, Images.
        table: The policy, policies.Table.
        scratch: What `augmix_cpu.views.own_scratch` returns in this thread for this size.
    """
    num_images = batch.indices.size
    i = claim(batch.next_image)
    while i < num_images:
        change_image(i, batch, table, scratch)
        i = claim(batch.next_image)

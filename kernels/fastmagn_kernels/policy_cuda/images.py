"""A policy of a batch uint8 -> uint8 on the device, in either memory format, without clean views and floats.

A block draws the operations of an image, loads it into a row, applies them and stores the result. Rows are in shared
memory if both fit, up to 82x82 px, else in `scratch`, where a block takes several images, one after another.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, types

from fastmagn_kernels.augmix_cuda.device import by_address, num_threads, thread_number
from fastmagn_kernels.augmix_cuda.geometry import load_pixel, store_pixel
from fastmagn_kernels.augmix_cuda.operations import BINS, SUMS, Rows, Scratch
from fastmagn_kernels.augmix_cuda.planning import launch_bounds
from fastmagn_kernels.augmix_cuda.views import SETTINGS, run_chain
from fastmagn_kernels.policy_cuda.table import MAX_STEPS, TABLE, draw_steps


class Drawn(NamedTuple):
    """The operations of a block's image, in shared memory.

    Args:
        ops: int32 [MAX_STEPS].
        magnitudes: Their values, float64 [MAX_STEPS].
        depth: Their number, int32 [1].
    """

    ops: np.ndarray
    magnitudes: np.ndarray
    depth: np.ndarray


class Block(NamedTuple):
    """What a block works with, as `augmix_cuda.views.Block` has it.

    Args:
        rows: The memory that contains its rows.
        drawn: What has been drawn.
        scratch: Shared memory of the operations.
        rotation_table: `pixel.rotation_table()`, flat: AugMix's operations are in the same code.
    """

    rows: Rows
    drawn: Drawn
    scratch: Scratch
    rotation_table: np.ndarray


@cuda.jit(device=True)
def load_image(images, image, planar, pixels, row, num_pixels):
    """Load the image at the index `image`, uint64, into the row at the byte `row`."""
    p, plane = thread_number(), np.uint64(num_pixels)
    while p < num_pixels:
        place = image + np.uint64(p if planar else np.uint32(3 * p))
        step = plane if planar else np.uint64(1)
        k = np.uint32(row + np.uint32(3 * p))
        store_pixel(pixels, k, images[place], images[place + step], images[place + np.uint64(2) * step])
        p = np.uint32(p + num_threads())


@cuda.jit(device=True)
def store_image(pixels, row, num_pixels, out, image, planar):
    """Store the row at the byte `row` as the image at the index `image`, uint64, of `out`."""
    p, plane = thread_number(), np.uint64(num_pixels)
    while p < num_pixels:
        place = image + np.uint64(p if planar else np.uint32(3 * p))
        step = plane if planar else np.uint64(1)
        red, green, blue = load_pixel(pixels, row + np.uint32(3 * p))
        out[place], out[place + step], out[place + np.uint64(2) * step] = red, green, blue
        p = np.uint32(p + num_threads())


@cuda.jit(device=True)
def change_image(images, image, index, s, planar, first_row, spare_row, block, table, out):
    """Apply the policy to the image at the index `image`, uint64."""
    drawn, pixels, num_pixels = block.drawn, block.rows.pixels, np.uint32(s.height * s.width)
    if thread_number() == 0:
        drawn.depth[0] = draw_steps(index, s, table, np.int32(0), drawn.ops, drawn.magnitudes)
    cuda.syncthreads()
    depth = drawn.depth[0]
    source = spare_row if depth & 1 == 1 else first_row
    load_image(images, image, planar, pixels, source, num_pixels)
    cuda.syncthreads()
    run_chain(0, depth, source, spare_row, first_row, s, block, table)
    store_image(pixels, first_row, num_pixels, out, image, planar)
    cuda.syncthreads()


def _make_kernel(in_shared: bool) -> Callable:
    def change_images(images, indices, s, planar, row_bytes, table, rotation_table, scratch_words, out):
        drawn = Drawn(
            cuda.shared.array(MAX_STEPS, types.int32),
            cuda.shared.array(MAX_STEPS, types.float64),
            cuda.shared.array(1, types.int32),
        )
        scratch = Scratch(
            cuda.shared.array(BINS, types.uint8),
            cuda.shared.array(BINS, types.int32),
            cuda.shared.array(SUMS, types.int32),
            cuda.shared.array(1, types.int32),
        )
        if in_shared:
            words, start = by_address(cuda.shared.array(0, types.uint32))
        else:
            words, start = scratch_words, np.uint32(cuda.blockIdx.x * np.uint32(2 * row_bytes))
        block = Block(Rows(words.view(np.uint8), words), drawn, scratch, rotation_table)
        size = np.uint64(np.uint32(3 * s.height * s.width))
        i = np.uint32(cuda.blockIdx.x)
        while i < np.uint32(indices.size):
            spare = np.uint32(start + row_bytes)
            change_image(images, np.uint64(i) * size, indices[i], s, planar, start, spare, block, table, out)
            i = np.uint32(i + cuda.gridDim.x)

    return change_images


def kernel_source(in_shared: bool) -> tuple[Callable, Any, tuple[int, int]]:
    """Return a kernel's Python function, its signature and its launch bounds, as `compiling.compile_ptx` takes them.

    The kernel takes images uint8 [B 3 H W] or [B H W 3], indices int64 [B], draws.Settings, whether images are planar,
    row_bytes of Launch, the policy's Table, pixel.rotation_table(), scratch uint32 [scratch_bytes / 4] and the result,
    as the images; all arrays flat and contiguous.
    """
    arguments = (
        types.uint8[::1],
        types.int64[::1],
        SETTINGS,
        types.boolean,
        types.uint32,
        TABLE,
        types.float64[::1],
        types.uint32[::1],
        types.uint8[::1],
    )
    (columns, rows), blocks = launch_bounds(in_shared)
    return _make_kernel(in_shared), types.void(*arguments), (columns * rows, blocks)

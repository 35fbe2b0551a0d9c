"""The CUDA engine: one launch draws and makes every view of a batch, bit for bit the views of `augmix_cpu`.

How the work is laid out on the device:

    block       makes every `groups`-th view of one image: first the clean view, then its views one by one. Each group
                makes the clean view again, so there are only as many groups as fill the device.
    chain       the base transform and each chain of AugMix are chains of operations: one piece of code applies them
                all (`run_chain`), so an operation is in the kernel once.
    row         an image, uint8 [H W 3]: the clean view, a spare row, and the chains' ends. An operation reads one row
                and writes another. In a chain, every second operation writes the spare row, and the last one writes the
                chain's own row. So mixing reads all chains at once and keeps no sums.
    memory      rows are in shared memory if they fit (15 KiB at 32x32 and 3 chains), else in `scratch`. The grid is
                then small enough for `scratch`, and each block takes several images, one after another. There, the ends
                of the first chains are kept in the memory of the view itself (`storing.Kept`), so that 132
                multiprocessors have a block each at 224x224.
    draws       one thread draws each operation of a view into shared memory (`draws`: Philox has no state, no order).
    output      is rounded from float32 when it is stored; neighbouring threads store neighbours, so it is coalesced.

Nothing here needs a GPU: `compiling` makes machine code without one, and tests run the kernels' PTX on the CPU.

Shape letters: V views, B batch, J AugMix views, N noise views, W chains, D operations of a chain, G groups, H W image.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda, types

from fastmagn_kernels.augmix_cuda import storing
from fastmagn_kernels.augmix_cuda.device import by_address
from fastmagn_kernels.augmix_cuda.geometry import BLACK, shift
from fastmagn_kernels.augmix_cuda.operations import (
    BINS,
    SUMS,
    Rows,
    Scratch,
    apply_operation,
    num_threads,
    thread_number,
)
from fastmagn_kernels.augmix_cuda.planning import FIRST_CHAIN_ROW, SPARE_ROW, launch_bounds
from fastmagn_kernels.augmix_cuda.storing import Kept, keep_chain, store_clean, store_mixture, store_noisy
from fastmagn_kernels.policy_cuda.operations import apply_step
from fastmagn_kernels.policy_cuda.patches import NUM_SUMS, Patch
from fastmagn_kernels.policy_cuda.recipe import RECIPE, Areas, draw_areas, erase_area, store_first
from fastmagn_kernels.policy_cuda.table import MAX_STEPS, draw_steps
from fastmagn_kernels.random import draws
from fastmagn_kernels.random.draws import (
    ANGLE_UNITS_PER_DEGREE,
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    MAX_DEPTH,
    MAX_WIDTH,
    ROTATE,
    Settings,
)

_MAX_OPERATIONS = MAX_WIDTH * MAX_DEPTH
_MAX_BASE_OPERATIONS = 4  # three of the jitter, and a rotation
_MAX_WEIGHTS = MAX_WIDTH + 1
_BASE = -1  # the number of the base transform among an image's chains


class Drawn(NamedTuple):
    """The parameters of a block's image and of the AugMix view that it makes, in shared memory.

    Args:
        base: Crop x and y, flip, and the number of operations of the base transform: int32 [4].
        ops: The operations of the chains, int32 [W D]; for the base transform, its operations.
        magnitudes: Their magnitudes, float64 [W D].
        depths: How many of its D operations each chain has, int32 [W].
        exponentials: The exponentials of the chains, float32 [W].
        weights: The weights of the chains, divided by 255, and the mix weight: float32 [W + 1].
    """

    base: np.ndarray
    ops: np.ndarray
    magnitudes: np.ndarray
    depths: np.ndarray
    exponentials: np.ndarray
    weights: np.ndarray


_FIELD_TYPES = {int: types.int32, bool: types.boolean, float: types.float64, np.uint32: types.uint32}
SETTINGS = types.NamedTuple(
    [types.uint32 if name == "epoch" else _FIELD_TYPES[field] for name, field in Settings.__annotations__.items()],
    Settings,
)


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
def draw_base_chain(index, s, drawn, recipe, areas):
    """Draw the base transform into `drawn`: what changes an image by jitter and rotation, as a chain of operations.

    A policy's operations follow; an erased area and a noise patch are drawn into `areas`.
    """
    base, ops, magnitudes = drawn.base, drawn.ops, drawn.magnitudes
    if thread_number() == 0:
        x, y, flip, order, brightness, contrast, saturation, angle = draws.draw_base(index, s)
        depth = np.int32(0)
        for step in range(3):
            part = _jitter_part(np.int32(order), step)
            factor = brightness if part == 0 else (contrast if part == 1 else saturation)
            if factor != np.float32(1):
                ops[depth] = BRIGHTNESS if part == 0 else (CONTRAST if part == 1 else COLOR)
                magnitudes[depth] = factor
                depth = np.int32(depth + 1)
        if angle != 0:
            ops[depth] = ROTATE
            magnitudes[depth] = angle / ANGLE_UNITS_PER_DEGREE
            depth = np.int32(depth + 1)
        if recipe is not None:
            depth = draw_steps(index, s, recipe.table, depth, ops, magnitudes)
        base[0], base[1], base[2], base[3] = x - s.padding_px, y - s.padding_px, flip, depth
    if recipe is not None:
        draw_areas(index, s, recipe, areas)
    cuda.syncthreads()


@cuda.jit(device=True)
def draw_view(view, index, s, drawn):
    """Draw the parameters of AugMix view `view` into `drawn`."""
    ops, magnitudes, depths = drawn.ops, drawn.magnitudes, drawn.depths
    exponentials, weights = drawn.exponentials, drawn.weights
    lane = np.int32(thread_number())
    while lane < s.mixture_width * s.max_depth:
        chain = np.int32(lane // s.max_depth)
        step = np.int32(lane - chain * s.max_depth)
        mix_weight, strength = draws.draw_mix(view, index, s)
        exponential, depth = draws.draw_chain(view, chain, index, s)
        op, magnitude = draws.draw_operation(view, chain, step, index, strength, s)
        ops[np.uint32(lane)] = op
        magnitudes[np.uint32(lane)] = magnitude
        if step == 0:
            exponentials[np.uint32(chain)] = exponential
            depths[np.uint32(chain)] = depth
        if lane == 0:
            weights[np.uint32(s.mixture_width)] = mix_weight
        lane = np.int32(lane + num_threads())
    cuda.syncthreads()
    chain = np.int32(thread_number())
    while chain < s.mixture_width:
        total = np.float32(0)
        for other in range(s.mixture_width):
            total += exponentials[np.uint32(other)]
        share = draws.chain_share(exponentials[np.uint32(chain)], total, s.mixture_width)
        weights[np.uint32(chain)] = share / np.float32(255)
        chain = np.int32(chain + num_threads())
    cuda.syncthreads()


@cuda.jit(device=True)
def run_chain(first, depth, source, spare, end, s, block, table):
    """Apply `depth` operations from number `first` on to the row `source`, through the row `spare`, to `end`.

    Without a policy's `table`, None, they are AugMix's.
    """
    k = np.uint32(first)
    while depth > 0:
        target = end if depth & 1 == 1 else spare
        op, magnitude = block.drawn.ops[k], block.drawn.magnitudes[k]
        if table is None:
            apply_operation(
                op, magnitude, block.rows, source, target, s.height, s.width, block.scratch, block.rotation_table
            )  # fmt: skip
        else:
            apply_step(
                op, magnitude, block.rows, source, target, s.height, s.width, block.scratch, block.rotation_table, table
            )  # fmt: skip
        cuda.syncthreads()
        source, k, depth = target, np.uint32(k + 1), np.int32(depth - 1)


class Block(NamedTuple):
    """What a block works with.

    Args:
        rows: The memory that contains its rows.
        start: The byte where the first row starts, uint32.
        row_bytes: Bytes of a row, uint32.
        drawn: What has been drawn.
        scratch: Shared memory of the operations.
        rotation_table: `pixel.rotation_table()`, flat.
    """

    rows: Rows
    start: np.uint32
    row_bytes: np.uint32
    drawn: Drawn
    scratch: Scratch
    rotation_table: np.ndarray


@cuda.jit(device=True)
def _row(block, number):
    """Return the byte where a row starts."""
    return np.uint32(block.start + np.uint32(number * block.row_bytes))


@cuda.jit(device=True)
def crop(images, image, s, block):
    """Draw the base transform, and crop and flip an image; return the row and the number of operations that follow.

    The image starts at the index `image`, uint64. The row is the one from which the operations end in the first row.
    """
    base = block.drawn.base
    depth = base[3]
    row = _row(block, SPARE_ROW if depth & 1 == 1 else 0)
    shift(images, image, block.rows.pixels, row, s.height, s.width, base[0], base[1], base[2] != 0, BLACK)
    cuda.syncthreads()
    return row, depth


@cuda.jit(device=True)
def store_others(view, groups, index, place, stride, s, block, out, encoding, recipe, areas):
    """Store the clean view and noise views, from number `view` on, up to the next AugMix view; return its number.

    `place` is the index of the image's first view in `out`, and `stride` the distance between its views.
    """
    num_values = np.uint32(3 * s.height * s.width)
    while view <= s.num_augmix + s.num_noise and (view == 0 or view > s.num_augmix):
        start = place + np.uint64(view) * stride
        if view == 0:
            if recipe is None:
                store_clean(block.rows.words, block.start, num_values, out, start, encoding)
            else:
                store_first(
                    index, s, recipe, block.rows, block.start, areas, num_values, out, start, encoding
                )  # fmt: skip
        else:
            noise = np.int32(view - 1 - s.num_augmix)
            store_noisy(noise, index, s, block.rows.pixels, block.start, num_values, out, start, encoding)
        view = np.int32(view + groups)
    return view


@cuda.jit(device=True)
def store_augmix(view, place, stride, kept, s, block, out, encoding):
    """Store an AugMix view, whose chains have been run."""
    num_values = np.uint32(3 * s.height * s.width)
    start = place + np.uint64(view) * stride
    store_mixture(
        block.rows.words, block.start, _row(block, FIRST_CHAIN_ROW), block.row_bytes, kept, block.drawn.weights,
        s.mixture_width, num_values, out, start, encoding,
    )  # fmt: skip


@cuda.jit(device=True)
def image_views(
    images, i, batch, index, view, groups, kept_count, s, block, out, out_words, encoding, alone, recipe, areas
):
    """Make every `groups`-th view of image `i`, from number `view` on.

    With `alone`, `out` has AugMix views only, from number 1 on.
    """
    size = np.uint64(np.uint32(3 * s.height * s.width))
    place, stride = np.uint64(i) * size, np.uint64(batch) * size
    step = np.uint32(1 if encoding == storing.LEVEL else 2 if encoding == storing.BFLOAT16 or out.itemsize == 2 else 4)
    draw_base_chain(index, s, block.drawn, recipe, areas)
    source, depth = crop(images, place, s, block)
    if alone:
        place = np.uint64(place - stride)
    chain, end = np.int32(_BASE), block.start
    while True:
        first = np.int32(max(chain, np.int32(0)) * s.max_depth)
        if recipe is None:
            run_chain(first, depth, source, _row(block, SPARE_ROW), end, s, block, None)
        else:
            run_chain(first, depth, source, _row(block, SPARE_ROW), end, s, block, recipe.table)
            if chain == _BASE:
                erase_area(index, s, recipe, block.rows, block.start, areas)
        kept = Kept(out_words, (place + np.uint64(view) * stride) * np.uint64(step) // np.uint64(4), step, kept_count)
        if 0 <= chain < np.int32(kept_count):
            keep_chain(block.rows.words, end, np.uint32(size), kept, np.uint32(chain))
            cuda.syncthreads()
        chain = np.int32(chain + 1)
        if chain == s.mixture_width:
            store_augmix(view, place, stride, kept, s, block, out, encoding)
            view = np.int32(view + groups)
        if chain == 0 or chain == s.mixture_width:
            if not alone:
                view = store_others(view, groups, index, place, stride, s, block, out, encoding, recipe, areas)
            if view > s.num_augmix + s.num_noise:
                break
            cuda.syncthreads()
            draw_view(view - 1, index, s, block.drawn)
            chain = np.int32(0)
        depth = block.drawn.depths[np.uint32(chain)]
        source, end = (
            block.start,
            _row(block, np.uint32(FIRST_CHAIN_ROW + max(np.int32(chain - np.int32(kept_count)), np.int32(0)))),
        )
    cuda.syncthreads()


def _make_views(encoding: int, in_shared: bool, alone: bool, max_operations: int) -> Callable:
    """Return what kernels do, with or without a recipe and its areas, which are None."""

    @cuda.jit(device=True)
    def make_views(
        images, indices, s, groups, row_bytes, kept, rotation_table, scratch_words, out, out_words, recipe, areas
    ):
        drawn = Drawn(
            cuda.shared.array(4, types.int32),
            cuda.shared.array(max_operations, types.int32),
            cuda.shared.array(max_operations, types.float64),
            cuda.shared.array(MAX_WIDTH, types.int32),
            cuda.shared.array(MAX_WIDTH, types.float32),
            cuda.shared.array(_MAX_WEIGHTS, types.float32),
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
            num_rows = np.uint32(FIRST_CHAIN_ROW + s.mixture_width - kept)
            words, start = scratch_words, np.uint32(cuda.blockIdx.x * np.uint32(num_rows * row_bytes))
        block = Block(Rows(words.view(np.uint8), words), start, row_bytes, drawn, scratch, rotation_table)
        kept_count = np.uint32(0) if in_shared else kept
        batch = np.uint32(indices.size)
        item = np.uint32(cuda.blockIdx.x)
        while item < batch * groups:
            i = np.uint32(item // groups)
            view = np.int32(item - i * groups)
            if alone:
                view = np.int32(view + 1)
            image_views(
                images, i, batch, indices[i], view, groups, kept_count, s, block, out, out_words, encoding, alone,
                recipe, areas,
            )  # fmt: skip
            item = np.uint32(item + cuda.gridDim.x)

    return make_views


def _make_kernel(encoding: int, in_shared: bool, with_recipe: bool, alone: bool) -> Callable:
    """Return the kernel's source."""
    max_operations = max(_MAX_OPERATIONS, _MAX_BASE_OPERATIONS + MAX_STEPS) if with_recipe else _MAX_OPERATIONS
    make_views = _make_views(encoding, in_shared, alone, max_operations)

    def plain_views(images, indices, s, groups, row_bytes, kept, rotation_table, scratch_words, out, out_words):
        make_views(
            images, indices, s, groups, row_bytes, kept, rotation_table, scratch_words, out, out_words, None, None
        )  # fmt: skip

    def recipe_views(
        images, indices, s, groups, row_bytes, kept, rotation_table, scratch_words, out, out_words, recipe
    ):
        patch = Patch(
            cuda.shared.array(4, types.int32),
            cuda.shared.array(1, types.int32),
            cuda.shared.array(3, types.float32),
            cuda.shared.array(NUM_SUMS, types.int64),
        )
        areas = Areas(cuda.shared.array(4, types.int32), patch)
        make_views(
            images, indices, s, groups, row_bytes, kept, rotation_table, scratch_words, out, out_words, recipe, areas
        )  # fmt: skip

    return recipe_views if with_recipe else plain_views


def kernel_source(
    element: str, in_shared: bool, with_recipe: bool = False, alone: bool = False
) -> tuple[Callable, Any, tuple[int, int]]:
    """Return a kernel's Python function, its signature and its launch bounds, as `compiling.compile_ptx` takes them.

    The kernel takes images uint8 [B H W 3], indices int64 [B], draws.Settings; groups, row_bytes and kept of Launch;
    pixel.rotation_table(), scratch uint32 [scratch_bytes / 4], out [V B H W 3] of the element's type, and the same
    memory as uint32, of which nothing is used unless `kept` is above 0; all arrays flat and contiguous. Elements of
    bfloat16 are passed as their bits, uint16. A kernel for views with a recipe takes it, recipe.Recipe, as the last.
    With `alone`, `out` has AugMix views only, without the clean view, and its element is one of ALONE_ELEMENTS.
    """
    arguments = (
        types.uint8[::1],
        types.int64[::1],
        SETTINGS,
        types.uint32,
        types.uint32,
        types.uint32,
        types.float64[::1],
        types.uint32[::1],
        (storing.ALONE_ELEMENTS if alone else storing.ELEMENTS)[element][::1],
        types.uint32[::1],
        *([RECIPE] if with_recipe else []),
    )
    (columns, rows), blocks = launch_bounds(in_shared, with_recipe)
    encoding = {"bfloat16": storing.BFLOAT16, "uint8": storing.LEVEL}.get(element, storing.PLAIN)
    kernel = _make_kernel(encoding, in_shared, with_recipe, alone)
    return kernel, types.void(*arguments), (columns * rows, blocks)

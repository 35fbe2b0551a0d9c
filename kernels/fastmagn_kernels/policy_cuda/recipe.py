"""A policy, an erased area and a noise patch of a clean view on the device; see `policy_cpu.recipe`.

The policy's operations follow those of the base transform, in the same chain. Only kernels for views with a recipe
contain what is here.
"""

from typing import NamedTuple

import numpy as np
from numba import cuda, types

from fastmagn_kernels.augmix_cuda.storing import store_clean
from fastmagn_kernels.policy_cuda.erasing import draw_box, erase
from fastmagn_kernels.policy_cuda.patches import Patch, draw_patch_into, store_patched
from fastmagn_kernels.policy_cuda.table import TABLE, Table, packed, translated
from fastmagn_kernels.random import policies
from fastmagn_kernels.random.policies import Erasing, Patches


class Recipe(NamedTuple):
    """What is drawn from for the clean views of a batch, on the device.

    Args:
        table: The policy.
        erasing: The erased areas; their colour is packed, red lowest.
        patches: The noise patches.
        sqrt_ratios: `policies.sqrt_ratios()`.
    """

    table: Table
    erasing: Erasing
    patches: Patches
    sqrt_ratios: np.ndarray


class Areas(NamedTuple):
    """What is drawn for a block's image, in shared memory.

    Args:
        erased: The erased area's left, top, width and height, px, int32 [4]; of width 0 if there is none.
        patch: The noise patch.
    """

    erased: np.ndarray
    patch: Patch


_FLOAT, _FLOATS = types.float64, types.float64[::1]
RECIPE = types.NamedTuple(
    [
        TABLE,
        types.NamedTuple([types.uint64, _FLOAT, _FLOAT, types.int32, types.int32, types.uint32], Erasing),
        types.NamedTuple([types.uint64, types.int64[::1], _FLOATS, _FLOAT, _FLOAT, _FLOAT, types.boolean], Patches),
        _FLOATS,
    ],
    Recipe,
)


def on_host(recipe: policies.Recipe) -> Recipe:
    """Return a recipe as the kernels take it, with arrays on the host."""
    erasing = recipe.erasing._replace(colour=packed(recipe.erasing.colour))
    return Recipe(translated(recipe.table), erasing, recipe.patches, recipe.sqrt_ratios)


@cuda.jit(device=True)
def draw_areas(index, s, recipe, areas):
    """Draw the erased area and the noise patch; the caller synchronises the block before they are read."""
    draw_box(index, s, recipe.erasing, recipe.sqrt_ratios, areas.erased)
    draw_patch_into(index, s, recipe.patches, recipe.sqrt_ratios, areas.patch)


@cuda.jit(device=True)
def erase_area(index, s, recipe, rows, clean, areas):
    """Fill the erased area, if there is one, in the row that starts at the byte `clean`, and synchronise the block."""
    if areas.erased[2] > 0:
        erase(rows, clean, index, s, recipe.erasing, areas.erased)
    cuda.syncthreads()


@cuda.jit(device=True)
def store_first(index, s, recipe, rows, clean, areas, num_values, out, start, encoding):
    """Store the row that starts at the byte `clean` as the clean view, with its noise patch if it has one."""
    if areas.patch.box[2] > 0:
        store_patched(
            rows, clean, index, s, recipe.patches, areas.patch, num_values, out, start, encoding
        )  # fmt: skip
    else:
        store_clean(rows.words, clean, num_values, out, start, encoding)

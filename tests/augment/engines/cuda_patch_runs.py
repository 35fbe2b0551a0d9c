"""A kernel of erased areas and noise patches alone, run as those in `cuda_runs`: one block makes a clean view."""

from typing import Any

import numpy as np
import torch
from numba import cuda, types

from fastmagn.augment.params import ViewParams
from fastmagn_kernels.augmix_cuda.operations import Rows
from fastmagn_kernels.augmix_cuda.planning import BLOCK_IN_SHARED
from fastmagn_kernels.augmix_cuda.storing import ELEMENTS, store_clean
from fastmagn_kernels.augmix_cuda.views import SETTINGS
from fastmagn_kernels.policy_cuda.erasing import draw_box, erase
from fastmagn_kernels.policy_cuda.patches import NUM_SUMS, Patch, draw_patch_into, store_patched
from fastmagn_kernels.policy_cuda.recipe import RECIPE, on_host
from tests.augment.engines.cuda_runs import HOST_TYPES, RunKernel
from tests.ptx.running import in_out, output

_INTEGERS, _FLOATS = types.int64[::1], types.float64[::1]
_ERASING, _PATCHES = (RECIPE[RECIPE.fields.index(field)] for field in ("erasing", "patches"))


def run_after_policy(
    run: RunKernel,
    images: np.ndarray,
    params: ViewParams,
    dtype: torch.dtype = torch.float32,
    block: tuple[int, int] = BLOCK_IN_SHARED,
    **options: Any,
) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """The clean views of uint8 [B, H, W, 3] whose base transform and policy do nothing.

    Returns:
        The views [B, H, W, 3]; the erased areas and the patches' rectangles, int32 [2, B, 4]; for each patch the index
        of its noise, its strength and the share left out, float32 [B, 3], or 0.
    """
    batch, height, width, _ = images.shape
    row_bytes = 12 * -(-height * width // 4)
    rows = np.full((batch, row_bytes), 173, np.uint8)
    rows[:, : images[0].size] = images.reshape(batch, -1)
    element = str(dtype).removeprefix("torch.")
    out = np.full(images.size, 1.5, HOST_TYPES[element])
    boxes, drawn = np.zeros(8 * batch, np.int32), np.zeros(3 * batch, np.float32)
    recipe = on_host(params.recipe)
    arguments = [
        params.indices,
        in_out(rows.reshape(-1).view(np.uint32), "rows"),
        row_bytes,
        params.settings,
        recipe.erasing,
        recipe.patches,
        recipe.sqrt_ratios,
        output(boxes, "boxes"),
        output(drawn, "drawn"),
        output(out, "views"),
    ]
    run(source(element), f"after_policy_{element}", batch, block, 0, arguments, **options)
    assert (rows[:, images[0].size :] == 173).all()
    return torch.from_numpy(out).view(dtype).reshape(images.shape), boxes.reshape(2, batch, 4), drawn.reshape(batch, 3)


def source(element: str) -> tuple[Any, Any, None]:
    """The kernel's function and signature, for blocks of any size."""
    bfloat16 = element == "bfloat16"

    def after_policy(indices, words, row_bytes, s, erasing, patches, ratios, boxes, drawn, out):
        i = np.uint32(cuda.blockIdx.x)
        index, start = indices[i], np.uint32(i * row_bytes)
        num_values = np.uint32(3 * s.height * s.width)
        place = np.uint64(i) * np.uint64(num_values)
        rows = Rows(words.view(np.uint8), words)
        box = cuda.shared.array(4, types.int32)
        patch = Patch(
            cuda.shared.array(4, types.int32),
            cuda.shared.array(1, types.int32),
            cuda.shared.array(3, types.float32),
            cuda.shared.array(NUM_SUMS, types.int64),
        )
        draw_box(index, s, erasing, ratios, box)
        draw_patch_into(index, s, patches, ratios, patch)
        cuda.syncthreads()
        if box[2] > 0:
            erase(rows, start, index, s, erasing, box)
            cuda.syncthreads()
        if patch.box[2] > 0:
            store_patched(rows, start, index, s, patches, patch, num_values, out, place, bfloat16)
        else:
            store_clean(words, start, num_values, out, place, bfloat16)
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            for k in range(4):
                boxes[np.uint32(4 * i + k)] = box[k]
            if patch.box[2] > 0:
                for k in range(4):
                    boxes[np.uint32(4 * (cuda.gridDim.x + i) + k)] = patch.box[k]
                drawn[np.uint32(3 * i)] = patch.noise[0]
                drawn[np.uint32(3 * i + 1)] = patch.scales[0]
                drawn[np.uint32(3 * i + 2)] = patch.scales[1]

    signature = types.void(
        _INTEGERS, types.uint32[::1], types.uint32, SETTINGS, _ERASING, _PATCHES, _FLOATS,
        types.int32[::1], types.float32[::1], ELEMENTS[element][::1],
    )  # fmt: skip
    return after_policy, signature, None

"""The CUDA engine: fastmagn_kernels.augmix_cuda, in one launch on torch's current stream.

The kernel draws every parameter for itself, so indices are all that a batch sends to the device, and nothing waits.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from fastmagn.augment.engines.on_device import (
    array_of,
    copied,
    indices_on_device,
    load_kernel,
    num_sms,
    rotations_on_device,
)
from fastmagn.augment.params import ViewParams
from fastmagn.augment.policies.recipe import Colour, has_recipe, policy_in_use, undrawn_recipe
from fastmagn.augment.policies.table import Policy
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import check
from fastmagn_kernels.augmix_cuda import launching
from fastmagn_kernels.augmix_cuda.launching import Array
from fastmagn_kernels.augmix_cuda.planning import MAX_PIXELS, launch_bounds, plan_launch
from fastmagn_kernels.augmix_cuda.views import kernel_source
from fastmagn_kernels.policy_cuda.recipe import Recipe, on_host

_ELEMENTS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.uint8: "uint8"}


class _OnDevice(NamedTuple):
    recipe: Recipe
    tensors: list[Tensor]


def fill_views(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, [V*B, H, W, 3] of VIEW_DTYPES, with the views of `images`, uint8 [B, H, W, 3], as `make_views` says.

    Both are contiguous and on one CUDA device. Float32 views equal the CPU engine's to the bit; other dtypes are these
    values, rounded to nearest. The engine takes at most 64 MiB of other memory.

    Raises:
        InputError: An image has more than 2^23 pixels.
    """
    _launch(images, params, out, params.view_spec.num_views, alone=False)


def fill_augmix(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, uint8 or float32 [B, H, W, 3], with the one AugMix view of each of `images`, uint8 [B, H, W, 3].

    As `fill_views` otherwise, for params without a base transform. Levels are rounded from float32, ties to even.
    `out` starts at a multiple of 16 bytes.
    """
    _launch(images, params, out, 1, alone=True)


def _launch(images: Tensor, params: ViewParams, out: Tensor, num_views: int, alone: bool) -> None:
    batch, height, width, _ = images.shape
    check(height * width <= MAX_PIXELS, "images_u8", f"{height} x {width} pixels", f"at most {MAX_PIXELS} on CUDA")
    device, value_bytes = images.device, out.element_size()
    settings = params.settings
    plan = plan_launch(batch, num_views, height, width, settings.mixture_width, num_sms(device), value_bytes)
    with torch.cuda.device(device):  # the driver works on the current device
        stream = torch.cuda.current_stream(device).cuda_stream
        indices = indices_on_device(params.indices.tobytes(), device, stream)
        element = _ELEMENTS[out.dtype]
        recipe = _recipe_of(params, device, stream) if has_recipe(params.augment) else None
        kind = "alone-" if alone else "recipe-" if recipe else ""
        name = f"{kind}{element}-{'shared' if plan.in_shared else 'scratch'}"
        kernel = load_kernel(name, kernel_source, (element, plan.in_shared, recipe is not None, alone), device)
        scratch = None if plan.in_shared else torch.empty(plan.scratch_bytes, dtype=torch.uint8, device=device)
        arguments = (
            array_of(images),
            array_of(indices),
            settings,
            plan.groups,
            plan.row_bytes,
            plan.kept,
            array_of(rotations_on_device(device)),
            Array(0 if scratch is None else scratch.data_ptr(), plan.scratch_bytes // 4, 4),
            array_of(out),
            Array(out.data_ptr(), out.numel() * value_bytes // 4, 4),
            *([] if recipe is None else [recipe.recipe]),
        )
        launching.bind_context(device.index)
        launching.launch(
            kernel.handle,
            kernel.parameters.pack(*launching.flattened(arguments)),
            plan.blocks,
            launch_bounds(plan.in_shared, recipe is not None)[0],
            plan.shared_bytes,
            stream,
        )


def _recipe_of(params: ViewParams, device: torch.device, stream: int) -> _OnDevice:
    augment = params.augment
    return _recipe(augment, policy_in_use(augment), params.image_size, params.mean, device, stream)


@functools.lru_cache(maxsize=8)
def _recipe(
    augment: AugmentConfig,
    policy: Policy,
    image_size: tuple[int, int],
    mean: Colour,
    device: torch.device,
    stream: int,
) -> _OnDevice:
    """Copy a recipe to the device, on its current stream: memory that is freed is used again on this stream alone.

    `policy` is what the file that `augment` names says; it is part of the key, as the file may change between two runs.
    """
    return _OnDevice(*copied(on_host(undrawn_recipe(augment, image_size, mean)), device))

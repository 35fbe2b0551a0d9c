"""A policy of images on CUDA: fastmagn_kernels.policy_cuda, in one launch on torch's current stream."""

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
from fastmagn.augment.image_memory import is_planar
from fastmagn.augment.params import ViewParams
from fastmagn.augment.policies.table import Policy, make_table
from fastmagn.errors import check
from fastmagn_kernels.augmix_cuda import launching
from fastmagn_kernels.augmix_cuda.launching import Array
from fastmagn_kernels.augmix_cuda.planning import MAX_PIXELS, launch_bounds, plan_launch
from fastmagn_kernels.policy_cuda.images import kernel_source
from fastmagn_kernels.policy_cuda.table import Table, translated


class _OnDevice(NamedTuple):
    table: Table
    tensors: list[Tensor]


def change_images(images: Tensor, params: ViewParams, policy: Policy, out: Tensor) -> None:
    """Fill `out` with a policy of images uint8 [B, 3, H, W], both on CUDA, and contiguous or channels last alike.

    The result is to the bit that of the CPU engine. It takes at most 64 MiB of other memory.

    Raises:
        InputError: An image has more than 2^23 pixels.
    """
    height, width = params.image_size
    check(height * width <= MAX_PIXELS, "images", f"{height} x {width} pixels", f"at most {MAX_PIXELS} on CUDA")
    device = images.device
    plan = plan_launch(len(images), 1, height, width, 0, num_sms(device))
    with torch.cuda.device(device):  # the driver works on the current device
        stream = torch.cuda.current_stream(device).cuda_stream
        indices = indices_on_device(params.indices.tobytes(), device, stream)
        name = f"policy-{'shared' if plan.in_shared else 'scratch'}"
        kernel = load_kernel(name, kernel_source, (plan.in_shared,), device)
        scratch = None if plan.in_shared else torch.empty(plan.scratch_bytes, dtype=torch.uint8, device=device)
        arguments = (
            array_of(images),
            array_of(indices),
            params.settings,
            is_planar(out),
            plan.row_bytes,
            _table(policy, height, width, device, stream).table,
            array_of(rotations_on_device(device)),
            Array(0 if scratch is None else scratch.data_ptr(), plan.scratch_bytes // 4, 4),
            array_of(out),
        )
        launching.bind_context(device.index)
        launching.launch(
            kernel.handle,
            kernel.parameters.pack(*launching.flattened(arguments)),
            plan.blocks,
            launch_bounds(plan.in_shared)[0],
            plan.shared_bytes,
            stream,
        )


@functools.lru_cache(maxsize=16)
def _table(policy: Policy, height: int, width: int, device: torch.device, stream: int) -> _OnDevice:
    """Copy a policy to the device, on its current stream, as `numba_cuda` does a recipe."""
    return _OnDevice(*copied(translated(make_table(policy, height, width)), device))

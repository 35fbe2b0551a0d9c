"""The CUDA engine: fastmagn_kernels.augmix_cuda, in one launch on torch's current stream.

The kernel draws every parameter for itself, so indices are all that a batch sends to the device, and nothing waits.
"""

import functools
import struct
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastmagn.augment.params import ViewParams
from fastmagn.errors import check
from fastmagn_kernels.augmix_cuda import compiling, launching
from fastmagn_kernels.augmix_cuda.launching import Array
from fastmagn_kernels.augmix_cuda.planning import BLOCK_IN_SCRATCH, BLOCK_IN_SHARED, MAX_PIXELS, plan_launch
from fastmagn_kernels.augmix_cuda.views import kernel_source
from fastmagn_kernels.pixel import rotation_table

_ELEMENTS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


class _Kernel(NamedTuple):
    """A kernel that is loaded on a device; `loaded` keeps it there."""

    handle: int
    parameters: struct.Struct
    loaded: object


def fill_views(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, [V*B, H, W, 3] of VIEW_DTYPES, with the views of `images`, uint8 [B, H, W, 3], as `make_views` says.

    Both are contiguous and on one CUDA device. Float32 views equal the CPU engine's to the bit; other dtypes are these
    values, rounded to nearest. The engine takes at most 64 MiB of other memory.

    Raises:
        InputError: An image has more than 2^23 pixels.
    """
    batch, height, width, _ = images.shape
    check(height * width <= MAX_PIXELS, "images_u8", f"{height} x {width} pixels", f"at most {MAX_PIXELS} on CUDA")
    device, value_bytes = images.device, out.element_size()
    settings = params.settings
    plan = plan_launch(
        batch, params.view_spec.num_views, height, width, settings.mixture_width, _num_sms(device), value_bytes
    )
    with torch.cuda.device(device):  # the driver works on the current device
        stream = torch.cuda.current_stream(device).cuda_stream
        indices = _on_device(params.indices.tobytes(), device, stream)
        kernel = _kernel(_ELEMENTS[out.dtype], plan.in_shared, device)
        scratch = None if plan.in_shared else torch.empty(plan.scratch_bytes, dtype=torch.uint8, device=device)
        table = _rotation_table(device)
        arguments = (
            Array(images.data_ptr(), images.numel(), 1),
            Array(indices.data_ptr(), batch, 8),
            settings,
            plan.groups,
            plan.row_bytes,
            plan.kept,
            Array(table.data_ptr(), table.numel(), 8),
            Array(0 if scratch is None else scratch.data_ptr(), plan.scratch_bytes // 4, 4),
            Array(out.data_ptr(), out.numel(), value_bytes),
            Array(out.data_ptr(), out.numel() * value_bytes // 4, 4),
        )
        launching.launch(
            kernel.handle,
            kernel.parameters.pack(*launching.flattened(arguments)),
            plan.blocks,
            BLOCK_IN_SHARED if plan.in_shared else BLOCK_IN_SCRATCH,
            plan.shared_bytes,
            stream,
        )


@functools.cache
def _num_sms(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.lru_cache(maxsize=8)
def _on_device(indices: bytes, device: torch.device, stream: int) -> Tensor:
    """Copy int64 indices to the device, on its current stream; those of a recent call on it are there already."""
    return torch.from_numpy(np.frombuffer(indices, np.int64).copy()).pin_memory().to(device, non_blocking=True)


@functools.cache
def _kernel(element: str, in_shared: bool, device: torch.device) -> _Kernel:
    """Compile and load a kernel for the current device."""
    name = f"{element}-{'shared' if in_shared else 'scratch'}"
    code = compiling.machine_code(
        name, lambda: kernel_source(element, in_shared), torch.cuda.get_device_capability(device)
    )
    loaded = compiling.load(code)
    _, signature, _ = kernel_source(element, in_shared)
    return _Kernel(int(loaded.handle), launching.layout(signature), loaded)


@functools.cache
def _rotation_table(device: torch.device) -> Tensor:
    return torch.from_numpy(rotation_table().reshape(-1)).to(device)

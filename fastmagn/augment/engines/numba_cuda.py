"""The CUDA engine: fastmagn_kernels.augmix_cuda, in one launch on torch's current stream.

The kernel draws every parameter for itself, so indices are all that a batch sends to the device, and nothing waits.
"""

import functools
import warnings

import numpy as np
import torch
from numba import cuda
from numba.core.errors import NumbaPerformanceWarning
from torch import Tensor

from fastmagn.augment.params import ViewParams
from fastmagn.errors import check
from fastmagn_kernels.augmix_cuda.views import BLOCK, MAX_PIXELS, plan_launch, views_kernel
from fastmagn_kernels.pixel import rotation_table

_ELEMENTS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def fill_views(images: Tensor, params: ViewParams, out: Tensor) -> None:
    """Fill `out`, [V*B, H, W, 3] of VIEW_DTYPES, with the views of `images`, uint8 [B, H, W, 3], as `make_views` says.

    Both are contiguous and on one CUDA device. Float32 views equal the CPU engine's to the bit; other dtypes are these
    values, rounded to nearest. The engine takes at most 64 MiB of other memory.

    Raises:
        InputError: An image has more than 2^23 pixels.
    """
    batch, height, width, _ = images.shape
    check(height * width <= MAX_PIXELS, "images_u8", f"{height} x {width} pixels", f"at most {MAX_PIXELS} on CUDA")
    device = images.device
    launch = plan_launch(
        batch, params.view_spec.num_views, height, width, params.augment.mixture_width, _num_sms(device.index)
    )
    with torch.cuda.device(device):  # numba works on the current device
        indices = torch.from_numpy(params.indices).pin_memory().to(device, non_blocking=True)
        scratch = torch.empty(launch.scratch_shape, dtype=torch.uint8, device=device)
        # The CUDA array interface has no bfloat16.
        elements = out.view(torch.uint16) if out.dtype == torch.bfloat16 else out
        kernel = views_kernel(_ELEMENTS[out.dtype], launch.in_shared, device.index)
        stream = _stream(device.index, torch.cuda.current_stream(device).cuda_stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaPerformanceWarning)  # on the small grids of small batches
            configured = kernel[launch.blocks, BLOCK, stream, launch.shared_bytes]
        configured(
            cuda.as_cuda_array(images.view(batch, -1), sync=False),
            cuda.as_cuda_array(indices, sync=False),
            params.settings,
            launch.groups,
            _rotation_table(device.index),
            cuda.as_cuda_array(scratch, sync=False),
            cuda.as_cuda_array(elements.view(len(out), -1), sync=False),
        )


@functools.cache
def _num_sms(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def _stream(device: int, handle: int) -> object:
    return cuda.external_stream(handle)


@functools.cache
def _rotation_table(device: int) -> object:
    table = torch.from_numpy(np.asarray(rotation_table())).to(f"cuda:{device}")
    return cuda.as_cuda_array(table, sync=False)

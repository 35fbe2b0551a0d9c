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

from fastmagn.augment.params import ViewParams, max_angle_units, max_depth, num_operations
from fastmagn.errors import check
from fastmagn_kernels.augmix_cuda.views import BLOCK, MAX_PIXELS, Launch, Settings, plan_launch, views_kernel
from fastmagn_kernels.pixel import rotation_table
from fastmagn_kernels.random import rng

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
            settings_of(params, launch),
            _rotation_table(device.index),
            cuda.as_cuda_array(scratch, sync=False),
            cuda.as_cuda_array(elements.view(len(out), -1), sync=False),
        )


def settings_of(params: ViewParams, launch: Launch) -> Settings:
    """What the kernel needs of `params`."""
    augment = params.augment
    height, width = params.image_size
    key_0, key_1 = rng.key_words(params.seed)
    return Settings(
        height=height,
        width=width,
        num_augmix=params.view_spec.num_augmix_views,
        num_noise=params.view_spec.num_noise_views,
        groups=launch.groups,
        epoch=params.epoch,
        key_0=key_0,
        key_1=key_1,
        padding_px=augment.crop_padding_px,
        horizontal_flip=augment.horizontal_flip,
        color_jitter=float(augment.color_jitter),
        max_angle=max_angle_units(augment),
        aug_severity=augment.aug_severity,
        random_aug_severity=augment.random_aug_severity,
        mixture_width=augment.mixture_width,
        mixture_depth=augment.mixture_depth,
        max_depth=max_depth(augment),
        num_ops=num_operations(augment),
        sigma_max=float(augment.sigma_max),
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

"""What the CUDA engines share: kernels that are loaded on a device, and what is copied there once."""

import functools
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastmagn_kernels.augmix_cuda import compiling, launching
from fastmagn_kernels.augmix_cuda.launching import Array
from fastmagn_kernels.pixel import rotation_table


class Kernel(NamedTuple):
    """A kernel that is loaded on a device; `loaded` keeps it there."""

    handle: int
    parameters: struct.Struct
    loaded: object


@functools.cache
def load_kernel(name: str, kernel_source: Callable[..., tuple], options: tuple, device: torch.device) -> Kernel:
    """Compile and load the kernel `kernel_source(*options)`, which `name` names, for the current device."""
    code = compiling.machine_code(name, lambda: kernel_source(*options), torch.cuda.get_device_capability(device))
    loaded = compiling.load(code)
    _, signature, _ = kernel_source(*options)
    return Kernel(int(loaded.handle), launching.layout(signature), loaded)


@functools.cache
def num_sms(device: torch.device) -> int:
    """The number of the device's multiprocessors."""
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.lru_cache(maxsize=8)
def indices_on_device(indices: bytes, device: torch.device, stream: int) -> Tensor:
    """Copy int64 indices to the device, on its current stream; those of a recent call on it are there already."""
    return torch.from_numpy(np.frombuffer(indices, np.int64).copy()).pin_memory().to(device, non_blocking=True)


@functools.cache
def rotations_on_device(device: torch.device) -> Tensor:
    """`pixel.rotation_table()`, flat."""
    return torch.from_numpy(rotation_table().reshape(-1)).to(device)


def array_of(tensor: Tensor) -> Array:
    """A tensor's memory as a kernel's argument."""
    return Array(tensor.data_ptr(), tensor.numel(), tensor.element_size())


def copied(arrays: Any, device: torch.device) -> tuple[Any, list[Tensor]]:
    """A NamedTuple with every numpy array in it copied to the device; and the tensors, which must be kept."""
    tensors: list[Tensor] = []

    def copy(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            tensors.append(torch.from_numpy(value.view(np.int64) if value.dtype == np.uint64 else value).to(device))
            return array_of(tensors[-1])
        return type(value)(*map(copy, value)) if isinstance(value, tuple) else value

    return copy(arrays), tensors

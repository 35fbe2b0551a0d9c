"""Launch a compiled kernel by the CUDA driver, with all its parameters packed into one block of memory.

A kernel's parameters are laid out as a C structure: a flat array is seven words in numba (two that are unused here,
its size, the bytes of an element, its address, its length and its stride), a NamedTuple is its fields. `struct` packs
all of them at once, in about five microseconds; numba's own launcher handles each by itself, in more than a hundred.
"""

import ctypes
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from cuda.bindings import driver
from numba import types

_LETTERS = {
    types.boolean: "?",
    types.int32: "i",
    types.uint32: "I",
    types.int64: "q",
    types.uint64: "Q",
    types.float64: "d",
}


class Array(NamedTuple):
    """A flat, contiguous array on the device.

    Args:
        address: Its first byte.
        size: Its elements.
        itemsize: Bytes of an element.
    """

    address: int
    size: int
    itemsize: int


def layout(signature: Any) -> struct.Struct:
    """Return the layout of the parameters of a kernel with this signature."""
    return struct.Struct("@" + "".join(map(_letters, signature.args)))


def _letters(argument: Any) -> str:
    if isinstance(argument, types.Array):
        return "7q"
    if isinstance(argument, types.BaseTuple):
        return "".join(map(_letters, argument.types))
    return _LETTERS[argument]


def flattened(arguments: tuple) -> Iterator[Any]:
    """Yield what `layout` packs: the values of the arguments, which are Array, NamedTuples and numbers."""
    for argument in arguments:
        if isinstance(argument, Array):
            yield from (0, 0, argument.size, argument.itemsize, argument.address, argument.size, argument.itemsize)
        elif isinstance(argument, tuple):
            yield from flattened(argument)
        else:
            yield argument


def bind_context(device: int) -> None:
    """Give this thread the context of a device, numbered as PyTorch does, if it has none.

    A thread has none until it calls CUDA's runtime, as PyTorch does when it copies or fills, and a launch on the
    default stream needs one.

    Raises:
        RuntimeError: The driver refuses.
    """
    status, context = driver.cuCtxGetCurrent()
    if status == driver.CUresult.CUDA_SUCCESS and int(context) == 0:
        status, context = driver.cuDevicePrimaryCtxRetain(device)
        if status == driver.CUresult.CUDA_SUCCESS:
            (status,) = driver.cuCtxSetCurrent(context)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"The CUDA driver refuses the context of device {device}: {status.name}.")


def launch(kernel: int, packed: bytes, blocks: int, threads: tuple[int, int], shared_bytes: int, stream: int) -> None:
    """Launch a kernel, given as the driver's handle, on a stream, given likewise; it returns without waiting.

    Raises:
        RuntimeError: The driver refuses.
    """
    size = ctypes.c_size_t(len(packed))
    extra = (ctypes.c_void_p * 5)(
        driver.CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT,
        ctypes.cast(packed, ctypes.c_void_p).value,
        driver.CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT,
        ctypes.addressof(size),
        driver.CU_LAUNCH_PARAM_END_AS_INT,
    )
    (status,) = driver.cuLaunchKernel(
        kernel, blocks, 1, 1, *threads, 1, shared_bytes, stream, 0, ctypes.addressof(extra)
    )
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"The CUDA driver refuses a launch of {blocks} blocks of {threads} threads: {status.name}.")

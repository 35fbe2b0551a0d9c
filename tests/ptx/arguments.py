"""A kernel's Python arguments as the bytes of its parameters, as numba-cuda passes them."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numba import types
from numba.cuda.np.numpy_support import as_dtype

from fastmagn_kernels.augmix_cuda.compiling import compile_ptx
from tests.ptx.building import Builder
from tests.ptx.running import Kernel, Memory, Report, pointer

CAPABILITY = (9, 0)


class NumbaKernel:
    """A kernel that numba-cuda compiles, run from its PTX.

    `function`, `signature` and `launch_bounds` are those that `compile_ptx` takes. An array argument is a numpy array
    that the kernel may only read, or a `Memory` which says more.
    """

    def __init__(self, ptx: str, signature: Any, builder: Builder) -> None:
        self.types = signature.args
        self.kernel = Kernel(ptx, builder)

    def launch(
        self, grid: Any, block: Any, arguments: Sequence[Any], *, memory: Sequence[Memory] = (), **options: Any
    ) -> Report:
        """Run it; `memory` are arrays that others point to, `options` those of `Kernel.launch`."""
        parameters, arrays = [], list(memory)
        for i, (kind, value) in enumerate(zip(self.types, arguments, strict=True)):
            parameters += _flattened(kind, value, f"argument {i}", arrays)
        return self.kernel.launch(grid, block, parameters, arrays, **options)


def numba_kernel(
    builder: Builder, function: Callable, signature: Any, launch_bounds: Any = None, name: str = ""
) -> NumbaKernel:
    """Compile a kernel, for a Hopper, and prepare its PTX to be run; `name` as `compile_once`."""
    return NumbaKernel(compile_once(builder, function, signature, launch_bounds, name), signature, builder)


def compile_once(
    builder: Builder, function: Callable, signature: Any, launch_bounds: Any = None, name: str = ""
) -> str:
    """Return a kernel's PTX. If `name` names it among the builder's kernels, one process compiles it for all."""

    def write(path: Path) -> None:
        path.write_text(compile_ptx(function, signature, launch_bounds, compute_capability=CAPABILITY))

    if name:
        return builder.made_once(f"{name}.ptx", write).read_text()
    return compile_ptx(function, signature, launch_bounds, compute_capability=CAPABILITY)


def _flattened(kind: Any, value: Any, name: str, arrays: list[Memory]) -> list[bytes]:
    """The parameters of one argument; arrays in it are appended to `arrays`."""
    if isinstance(kind, types.Array):
        place = value if isinstance(value, Memory) else Memory(value)
        named = Memory(place.array, place.writable, place.once, place.initialised, place.name or name)
        if not any(np.shares_memory(named.array, other.array) for other in arrays):  # the same memory as another type
            arrays.append(named)
        return _array_parameters(kind, named.array, name)
    if isinstance(kind, types.BaseTuple):
        fields = getattr(kind, "fields", range(len(kind.types)))
        inner = zip(kind.types, value, fields, strict=True)
        return [part for of, item, field in inner for part in _flattened(of, item, f"{name}.{field}", arrays)]
    if isinstance(kind, types.Boolean):
        return [struct.pack("<?", bool(value))]
    if isinstance(kind, types.RawPointer | types.CPointer):
        if isinstance(value, int):
            return [struct.pack("<Q", value)]
        place = value if isinstance(value, Memory) else Memory(value, name=name)
        arrays.append(place)
        return [pointer(place.array)]
    return [np.asarray(value).astype(as_dtype(kind)).tobytes()]


def _array_parameters(kind: types.Array, array: np.ndarray, name: str) -> list[bytes]:
    """(meminfo, parent, items, itemsize, data, shape..., strides...)."""
    if array.ndim != kind.ndim or array.dtype != as_dtype(kind.dtype):
        raise ValueError(f"{name}: got {array.dtype} of {array.ndim} dimensions; expected {kind}")
    words = [0, 0, array.size, array.itemsize, array.ctypes.data, *array.shape, *array.strides]
    return [struct.pack("<q", word) for word in words]

"""numba-cuda's compiler, with the CPU's rounding, and with the cache on disk of `fastmagn_kernels.compiling`.

By default NVVM contracts a * b + c to a fused multiply-add, and `cuda.jit` has no option against it (numba-cuda issue
118, to 0.30.4). Pillow's arithmetic is not fused, so NVVM's option is set here while a kernel is compiled. Linking at
the level of LLVM (`lto`) is off, because it would choose the instructions again.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from numba import cuda
from numba.cuda import dispatcher
from numba.cuda.core import config
from numba.cuda.core.compiler_lock import global_compiler_lock
from numba.cuda.cudadrv import nvvm
from numba.cuda.cudadrv.libs import get_libdevice

from fastmagn_kernels.compiling import cache_folder, keep_where_possible


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _unfused() -> Iterator[None]:
    with global_compiler_lock, _replaced(nvvm, "compile_ir", functools.partial(nvvm.compile_ir, fma=False)):
        yield


def jit_kernel(function: Callable, signature: Any, launch_bounds: tuple[int, int] | None = None) -> Any:
    """Compile a kernel for the current device and one signature; in numba's simulator, simulate the function.

    `launch_bounds`: the largest number of threads in a block, and the number of such blocks for which a multiprocessor
    must have registers.
    """
    if config.ENABLE_CUDASIM:
        return cuda.jit(function)
    with (
        _unfused(),
        _replaced(config, "CACHE_DIR", cache_folder()),
        _replaced(dispatcher, "CUDACache", _kept_where_possible(dispatcher.CUDACache)),
    ):
        return cuda.jit(signature, cache=True, lto=False, launch_bounds=launch_bounds)(function)


def load_compiler() -> None:
    """Load what `jit_kernel` compiles with, libNVVM and libdevice; where they are missing, an error of any type."""
    if not config.ENABLE_CUDASIM:
        nvvm.NVVM()
        get_libdevice()


def _kept_where_possible(cache_class: type) -> type:
    """The class of numba's caches, but a cache that cannot be written or read ends nothing."""

    class Cache(cache_class):
        def __init__(self, function: Callable) -> None:
            super().__init__(function)
            keep_where_possible(self)

    return Cache


def compile_ptx(
    function: Callable,
    signature: Any,
    launch_bounds: tuple[int, int] | None = None,
    *,
    compute_capability: tuple[int, int],
) -> str:
    """Return the PTX of what `jit_kernel` compiles, for a capability such as (9, 0). It needs no GPU and no driver."""
    device = SimpleNamespace(compute_capability=compute_capability)  # the compiler of device functions asks for it
    with _unfused(), _replaced(dispatcher, "get_current_device", lambda: device):
        ptx, _ = cuda.compile(
            function, signature, device=False, abi="numba", cc=compute_capability, launch_bounds=launch_bounds
        )
    return ptx

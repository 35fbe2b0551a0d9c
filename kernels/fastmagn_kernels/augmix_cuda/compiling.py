"""numba-cuda's compiler, rounding as the CPU does, and with the cache on disk of `compiling`.

NVVM contracts a * b + c to a fused multiply-add unless it is told not to, and `cuda.jit` has no option that tells it
(numba-cuda issue 118, to 0.30.4). Pillow's arithmetic is not fused, so NVVM's option is set here while a kernel is
compiled. Linking at the level of LLVM (`lto`) is off, since it would choose the instructions again.
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

from fastmagn_kernels.compiling import cache_folder


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
    """A kernel compiled for the current device and one signature; in numba's simulator the function, simulated.

    `launch_bounds`: the most threads of a block, and how many such blocks a multiprocessor must have registers for.
    """
    if config.ENABLE_CUDASIM:
        return cuda.jit(function)
    with _unfused(), _replaced(config, "CACHE_DIR", cache_folder()):
        return cuda.jit(signature, cache=True, lto=False, launch_bounds=launch_bounds)(function)


def compile_ptx(
    function: Callable,
    signature: Any,
    launch_bounds: tuple[int, int] | None = None,
    *,
    compute_capability: tuple[int, int],
) -> str:
    """The PTX of what `jit_kernel` compiles, for a capability such as (9, 0); needs no GPU and no driver."""
    device = SimpleNamespace(compute_capability=compute_capability)  # asked for when a device function is compiled
    with _unfused(), _replaced(dispatcher, "get_current_device", lambda: device):
        ptx, _ = cuda.compile(
            function, signature, device=False, abi="numba", cc=compute_capability, launch_bounds=launch_bounds
        )
    return ptx

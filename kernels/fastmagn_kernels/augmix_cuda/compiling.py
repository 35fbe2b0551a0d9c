"""numba-cuda's compiler with the CPU's rounding: kernels as PTX, and as machine code that is kept on disk.

By default NVVM contracts a * b + c to a fused multiply-add, and neither `cuda.jit` nor `cuda.compile` has an option
against it (numba-cuda issue 118, to 0.30.4). Pillow's arithmetic is not fused, so NVVM's option is set here while a
kernel is compiled. The PTX is assembled by cuda.core. So numba's launcher and its cache are not used: they take a
hundred microseconds of a call, and a full disk ends a run.
"""

import functools
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba_cuda
import numpy as np
from cuda.core import ObjectCode, Program, ProgramOptions
from numba import cuda
from numba.cuda import dispatcher
from numba.cuda.core.compiler_lock import global_compiler_lock
from numba.cuda.cudadrv import nvvm
from numba.cuda.cudadrv.libs import get_libdevice
from numba.cuda.descriptor import cuda_target

from fastmagn_kernels.compiling import cache_folder

_NAME = "kernel"
_DIGEST_BYTES = 32


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _lent(owner: Any, name: str, value: Any) -> Iterator[None]:
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)


def load_compiler() -> None:
    """Load what kernels are compiled with; an error of any type where it is missing or does not fit.

    These are libNVVM, libdevice, and numba-cuda's functions of NumPy. It reads `np.row_stack` (to 0.30.4), which NumPy
    2.5 has no more.
    """
    nvvm.NVVM()
    get_libdevice()
    with nullcontext() if hasattr(np, "row_stack") else _lent(np, "row_stack", np.vstack):
        cuda_target.typing_context.refresh()
        cuda_target.target_context.refresh()


def compile_ptx(
    function: Callable,
    signature: Any,
    launch_bounds: tuple[int, int] | None = None,
    *,
    compute_capability: tuple[int, int],
) -> str:
    """Return the PTX of a kernel for one signature and a capability such as (9, 0). It needs no GPU and no driver.

    `launch_bounds`: the largest number of threads in a block, and the number of such blocks for which a multiprocessor
    must have registers.
    """
    load_compiler()
    device = SimpleNamespace(compute_capability=compute_capability)  # the compiler of device functions asks for it
    unfused = functools.partial(nvvm.compile_ir, fma=False)
    with (
        global_compiler_lock,
        _replaced(nvvm, "compile_ir", unfused),
        _replaced(dispatcher, "get_current_device", lambda: device),
    ):
        ptx, _ = cuda.compile(
            function, signature, device=False, abi="numba", cc=compute_capability, launch_bounds=launch_bounds
        )
    return ptx


def assemble(ptx: str, compute_capability: tuple[int, int]) -> bytes:
    """Return the machine code, a cubin, of a PTX text with one kernel. It needs no GPU and no driver."""
    (name,) = re.findall(r"\.visible \.entry (\w+)", ptx)
    options = ProgramOptions(arch=f"sm_{compute_capability[0]}{compute_capability[1]}")
    return Program(re.sub(rf"\b{name}\b", _NAME, ptx), "ptx", options).compile("cubin").code


def machine_code(name: str, make_source: Callable[[], tuple], compute_capability: tuple[int, int]) -> bytes:
    """Return a kernel's machine code from the cache on disk, or compile it and keep it there where that is possible.

    `make_source` returns the arguments of `compile_ptx`. The cache's folder follows every kernel source, and the file's
    name the compiler's version. A file that is damaged is replaced.
    """
    major, minor = compute_capability
    path = Path(cache_folder()) / f"{name}-sm_{major}{minor}-{numba_cuda.__version__}.cubin"
    kept = _read(path)
    if kept is not None:
        return kept
    code = assemble(compile_ptx(*make_source(), compute_capability=compute_capability), compute_capability)
    with suppress(OSError):
        _keep(path, code)
    return code


def _read(path: Path) -> bytes | None:
    """Return the machine code of a file that `_keep` wrote; None if there is none, or if it is damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    code, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(path: Path, code: bytes) -> None:
    """Write machine code and its SHA-256, under another name first, so that no other process reads a part of it."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(handle, "wb") as file:
            file.write(code + hashlib.sha256(code).digest())
        os.replace(partial, path)
    except OSError:
        os.unlink(partial)
        raise


def load(code: bytes) -> Any:
    """Load machine code on the current device; the kernel is a cuda.core.Kernel."""
    return ObjectCode.from_cubin(code).get_kernel(_NAME)

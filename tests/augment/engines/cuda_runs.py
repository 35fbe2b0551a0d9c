"""The CUDA kernels run on numpy arrays: on the device, or in numba's simulator where NUMBA_ENABLE_CUDASIM is 1."""

import os
import sys
import threading
import warnings

import numpy as np
import torch
from numba import cuda, types
from numba.core.errors import NumbaPerformanceWarning

from fastmagn.augment.params import ViewParams
from fastmagn_kernels.augmix_cuda import compiling, launching
from fastmagn_kernels.augmix_cuda.operations import BINS, SUMS, Rows, Scratch, apply_operation
from fastmagn_kernels.augmix_cuda.views import BLOCK_IN_SCRATCH, BLOCK_IN_SHARED, Launch, kernel_source, plan_launch
from fastmagn_kernels.pixel import rotation_table

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
# The simulator starts a thread of Python for each of a block's; 6 of them divide neither rows nor bins evenly.
_SIMULATED_BLOCK = (3, 2)
_HOST_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}

if SIMULATED:
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    sys.setswitchinterval(1e-5)  # the simulator's threads wait for one another at every barrier

    class OneThreadAllocates(dict):
        """The shared arrays of a block. The simulator looks one up and then stores it: two threads may both find none,
        and then each works on an array of its own. Here the lock is held from a look-up that finds none to the store.
        """

        def __init__(self) -> None:
            super().__init__()
            self._lock = threading.Lock()

        def get(self, place: tuple[str, int]) -> np.ndarray | None:
            self._lock.acquire()
            array = super().get(place)
            if array is not None:
                self._lock.release()
            return array

        def __setitem__(self, place: tuple[str, int], array: np.ndarray) -> None:
            super().__setitem__(place, array)
            self._lock.release()

    def _start_with_a_lock(self: FakeCUDAShared, dynshared_size: int) -> None:
        _start(self, dynshared_size)
        self._allocations = OneThreadAllocates()

    _start = FakeCUDAShared.__init__
    FakeCUDAShared.__init__ = _start_with_a_lock


def plan(
    images: np.ndarray, params: ViewParams, in_shared: bool | None = None, dtype: torch.dtype = torch.float32
) -> Launch:
    """The launch for images [B, H, W, 3] on a device of 132 multiprocessors."""
    batch, height, width, _ = images.shape
    views, chains = params.view_spec.num_views, params.augment.mixture_width
    return plan_launch(batch, views, height, width, chains, 132, dtype.itemsize, in_shared)


def run_kernel(source: tuple, blocks: int, block: tuple[int, int], shared_bytes: int, arguments: tuple) -> None:
    """Run a kernel, as `kernel_source` gives it, in the simulator or on the device; arrays are flat and changed."""
    if SIMULATED:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NumbaPerformanceWarning)  # small grids, arrays on the host
            warnings.simplefilter("ignore", RuntimeWarning)  # words of 32 bits overflow on purpose
            cuda.jit(source[0])[blocks, _SIMULATED_BLOCK, 0, shared_bytes](*arguments)
        return
    arrays = sorted((a for a in arguments if isinstance(a, np.ndarray)), key=lambda array: -array.nbytes)
    memory = {}  # arrays that start at the same byte are one array on the device
    for array in arrays:
        memory.setdefault(array.ctypes.data, torch.from_numpy(array.view(np.uint8)).cuda())
    values = [
        launching.Array(memory[a.ctypes.data].data_ptr(), a.size, a.itemsize) if isinstance(a, np.ndarray) else a
        for a in arguments
    ]
    capability = torch.cuda.get_device_capability()
    ptx = compiling.compile_ptx(*source, compute_capability=capability)
    kernel = compiling.load(compiling.assemble(ptx, capability))
    packed = launching.layout(source[1]).pack(*launching.flattened(values))
    stream = torch.cuda.current_stream().cuda_stream
    launching.launch(int(kernel.handle), packed, blocks, block, shared_bytes, stream)
    for array in arrays:
        array.view(np.uint8)[:] = memory[array.ctypes.data].cpu().numpy()[: array.nbytes]


def run_views(
    images: np.ndarray, params: ViewParams, dtype: torch.dtype = torch.float32, launch: Launch | None = None
) -> torch.Tensor:
    """All views of uint8 [B, H, W, 3] as [V, B, H, W, 3] of `dtype`."""
    launch = launch or plan(images, params, dtype=dtype)
    element = str(dtype).removeprefix("torch.")
    size = params.view_spec.num_views * images.size
    words = np.full(-(-size * dtype.itemsize // 4), 0x3FC03FC0, np.uint32)
    out = words.view(_HOST_TYPES[element])[:size]
    arguments = (
        np.ascontiguousarray(images).reshape(-1),
        params.indices,
        params.settings,
        *(np.uint32(value) for value in (launch.groups, launch.row_bytes, launch.kept)),
        rotation_table().reshape(-1),
        np.full(max(1, launch.scratch_bytes // 4), 0x63636363, np.uint32),
        out,
        words,
    )
    block = BLOCK_IN_SHARED if launch.in_shared else BLOCK_IN_SCRATCH
    source = kernel_source(element, launch.in_shared)
    run_kernel(source, launch.blocks, block, launch.shared_bytes, arguments)
    return torch.from_numpy(out.copy()).view(dtype).reshape(params.view_spec.num_views, *images.shape)


def run_operations(ops: np.ndarray, magnitudes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Operation `ops[i]`, int64 [B], at `magnitudes[i]`, float64, on each of uint8 [B, H, W, 3]."""
    batch, height, width, _ = images.shape
    row_bytes = 12 * -(-height * width // 4)
    rows = np.full((2, batch, row_bytes), 173, np.uint8)  # an element that is not written shows
    rows[0, :, : images[0].size] = images.reshape(batch, -1)
    words = rows.reshape(-1).view(np.uint32)
    sizes = (np.int32(height), np.int32(width), np.uint32(row_bytes))
    arguments = (ops, magnitudes, words, *sizes, rotation_table().reshape(-1))
    run_kernel((_operations, _OPERATIONS_SIGNATURE), batch, BLOCK_IN_SHARED, 0, arguments)
    return words.view(np.uint8).reshape(rows.shape)[1, :, : images[0].size].reshape(images.shape)


_OPERATIONS_SIGNATURE = types.void(
    types.int64[::1], types.float64[::1], types.uint32[::1], types.int32, types.int32, types.uint32, types.float64[::1]
)


def _operations(ops, magnitudes, words, height, width, row_bytes, rotation_table):
    scratch = Scratch(
        cuda.shared.array(BINS, types.uint8),
        cuda.shared.array(BINS, types.int32),
        cuda.shared.array(SUMS, types.int32),
        cuda.shared.array(1, types.int32),
    )
    i = np.uint32(cuda.blockIdx.x)
    rows = Rows(words.view(np.uint8), words)
    source, target = np.uint32(i * row_bytes), np.uint32((i + cuda.gridDim.x) * row_bytes)
    apply_operation(ops[i], magnitudes[i], rows, source, target, height, width, scratch, rotation_table)

"""The CUDA kernels run on numpy arrays: on the device, or in numba's simulator where NUMBA_ENABLE_CUDASIM is 1."""

import functools
import os
import sys
import threading
import warnings

import numpy as np
import torch
from numba import cuda, types
from numba.core.errors import NumbaPerformanceWarning

from fastmagn.augment.params import ViewParams
from fastmagn_kernels.augmix_cuda.compiling import jit_kernel
from fastmagn_kernels.augmix_cuda.operations import BINS, SEGMENTS, Scratch, apply_operation
from fastmagn_kernels.augmix_cuda.views import BLOCK, Launch, plan_launch, views_kernel
from fastmagn_kernels.pixel import rotation_table

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
# The simulator starts a thread of Python for each of a block's; 6 of them divide neither rows nor bins evenly.
_BLOCK = (3, 2) if SIMULATED else BLOCK
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


def plan(images: np.ndarray, params: ViewParams, in_shared: bool | None = None) -> Launch:
    """The launch for images [B, H, W, 3] on a device of 132 multiprocessors."""
    batch, height, width, _ = images.shape
    return plan_launch(
        batch, params.view_spec.num_views, height, width, params.augment.mixture_width, 132, in_shared=in_shared
    )


def run_views(
    images: np.ndarray, params: ViewParams, dtype: torch.dtype = torch.float32, launch: Launch | None = None
) -> torch.Tensor:
    """All views of uint8 [B, H, W, 3] as [V, B, H, W, 3] of `dtype`."""
    launch = launch or plan(images, params)
    element = str(dtype).removeprefix("torch.")
    batch = len(images)
    out = np.full((params.view_spec.num_views * batch, images[0].size), 1.5, _HOST_TYPES[element])
    kernel = views_kernel(element, launch.in_shared, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaPerformanceWarning)  # small grids, arrays on the host
        kernel[launch.blocks, _BLOCK, 0, launch.shared_bytes](
            np.ascontiguousarray(images).reshape(batch, -1),
            params.indices,
            params.settings,
            launch.groups,
            rotation_table(),
            np.full(launch.scratch_shape, 99, np.uint8),
            out,
        )
    return torch.from_numpy(out).view(dtype).reshape(params.view_spec.num_views, *images.shape)


def run_operations(ops: np.ndarray, magnitudes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Operation `ops[i]`, int64 [B], at `magnitudes[i]`, float64, on each of uint8 [B, H, W, 3]."""
    batch, height, width, _ = images.shape
    out = np.full((batch, images[0].size), 173, np.uint8)  # an element that is not written shows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaPerformanceWarning)
        _operations_kernel()[batch, _BLOCK](
            ops, magnitudes, np.ascontiguousarray(images).reshape(batch, -1), out, height, width, rotation_table()
        )
    return out.reshape(images.shape)


def _operations(ops, magnitudes, images, out, height, width, rotation_table):
    scratch = Scratch(
        cuda.shared.array(BINS, types.uint8),
        cuda.shared.array(BINS, types.int32),
        cuda.shared.array((3, SEGMENTS), types.int32),
        cuda.shared.array(1, types.int32),
    )
    i = cuda.blockIdx.x
    apply_operation(ops[i], magnitudes[i], images[i], out[i], height, width, scratch, rotation_table)


@functools.cache
def _operations_kernel():
    pixels = types.uint8[:, ::1]
    return jit_kernel(
        _operations,
        types.void(
            types.int64[::1], types.float64[::1], pixels, pixels, types.int64, types.int64, types.float64[:, ::1]
        ),
    )

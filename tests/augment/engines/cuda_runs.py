"""The CUDA kernels run on numpy arrays: on the device where there is one, else from their PTX (tests/ptx)."""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numba import cuda, types
from numba.core.errors import NumbaPerformanceWarning

from fastmagn.augment.params import ViewParams
from fastmagn_kernels.augmix_cuda.compiling import jit_kernel
from fastmagn_kernels.augmix_cuda.operations import BINS, SEGMENTS, Scratch, apply_operation
from fastmagn_kernels.augmix_cuda.views import BLOCK, Launch, kernel_source, plan_launch
from fastmagn_kernels.pixel import rotation_table
from tests.helpers.cuda_kernels import views_name
from tests.ptx.arguments import NumbaKernel, numba_kernel
from tests.ptx.building import Builder
from tests.ptx.running import Memory, Report, output, scratch

NUM_SMS = 132
HOST_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}

# Runs a kernel: its source, its name, and then grid, block, bytes of shared memory and arguments.
RunKernel = Callable[..., object]


def run_on_device(
    source: Sequence[Any], name: str, grid: int, block: tuple[int, int], shared_bytes: int, arguments: Sequence[Any]
) -> None:
    """Run a kernel on the device; arrays that it writes are copied back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaPerformanceWarning)  # small grids, arrays on the host
        compiled = _compiled(name, lambda: jit_kernel(*source))
        compiled[grid, block, 0, shared_bytes](*(a.array if isinstance(a, Memory) else a for a in arguments))


_device_kernels: dict[str, Any] = {}


def _compiled(name: str, compile_kernel: Callable[[], Any]) -> Any:
    if name not in _device_kernels:
        _device_kernels[name] = compile_kernel()
    return _device_kernels[name]


class FromPtx:
    """Runs kernels from their PTX. A fault fails the test. Options are those of `Kernel.launch`.

    `kernels` are those that were run, by name; `report` is that of the last run.
    """

    report: Report

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.kernels: dict[str, NumbaKernel] = {}

    def __call__(
        self,
        source: Sequence[Any],
        name: str,
        grid: int,
        block: tuple[int, int],
        shared_bytes: int,
        arguments: Sequence[Any],
        **options: Any,
    ) -> None:
        """Run a kernel."""
        if name not in self.kernels:
            self.kernels[name] = numba_kernel(self.builder, *source, name=name)
        self.report = self.kernels[name].launch(grid, block, arguments, shared_bytes=shared_bytes, **options)
        assert not self.report.faults, "\n".join(map(str, self.report.faults))


def plan(images: np.ndarray, params: ViewParams, in_shared: bool | None = None) -> Launch:
    """The launch for images [B, H, W, 3] on a device of 132 multiprocessors."""
    batch, height, width, _ = images.shape
    return plan_launch(
        batch, params.view_spec.num_views, height, width, params.augment.mixture_width, NUM_SMS, in_shared=in_shared
    )


def run_views(
    run: RunKernel,
    images: np.ndarray,
    params: ViewParams,
    dtype: torch.dtype = torch.float32,
    launch: Launch | None = None,
    out: np.ndarray | None = None,
    **options: Any,
) -> torch.Tensor:
    """All views of uint8 [B, H, W, 3] as [V, B, H, W, 3] of `dtype`."""
    launch = launch or plan(images, params)
    element = str(dtype).removeprefix("torch.")
    batch = len(images)
    shape = (params.view_spec.num_views * batch, images[0].size)
    out = np.full(shape, 1.5, HOST_TYPES[element]) if out is None else out
    run(
        kernel_source(element, launch.in_shared),
        views_name(element, launch.in_shared),
        launch.blocks,
        BLOCK,
        launch.shared_bytes,
        [
            np.ascontiguousarray(images).reshape(batch, -1),
            params.indices,
            params.settings,
            launch.groups,
            np.asarray(rotation_table()),
            scratch(np.full(launch.scratch_shape, 99, np.uint8), "scratch"),
            output(out, "views"),
        ],
        **options,
    )
    return torch.from_numpy(out).view(dtype).reshape(params.view_spec.num_views, *images.shape)


def run_operations(run: RunKernel, ops: np.ndarray, magnitudes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Operation `ops[i]`, int64 [B], at `magnitudes[i]`, float64, on each of uint8 [B, H, W, 3]."""
    batch, height, width, _ = images.shape
    out = np.full((batch, images[0].size), 173, np.uint8)  # an element that is not written shows
    pixels = np.ascontiguousarray(images).reshape(batch, -1)
    arguments = [ops, magnitudes, pixels, output(out, "out"), height, width, np.asarray(rotation_table())]
    run(_operations_source(), "operations", batch, BLOCK, 0, arguments)
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
def _operations_source() -> tuple[Callable, Any]:
    pixels = types.uint8[:, ::1]
    arguments = (
        *(types.int64[::1], types.float64[::1], pixels, pixels, types.int64, types.int64),
        types.float64[:, ::1],
    )
    return _operations, types.void(*arguments)

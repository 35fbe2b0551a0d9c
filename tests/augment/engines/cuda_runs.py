"""The CUDA kernels run on numpy arrays: on the device where there is one, else from their PTX (tests/ptx)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numba import cuda, types

from fastmagn.augment.params import ViewParams
from fastmagn.augment.policies.table import Policy, make_table
from fastmagn_kernels.augmix_cuda import compiling, launching
from fastmagn_kernels.augmix_cuda.operations import BINS, SUMS, Rows, Scratch, apply_operation
from fastmagn_kernels.augmix_cuda.planning import BLOCK_IN_SHARED, Launch, launch_bounds, plan_launch
from fastmagn_kernels.augmix_cuda.views import kernel_source
from fastmagn_kernels.pixel import rotation_table
from fastmagn_kernels.policy_cuda.images import kernel_source as policy_source
from fastmagn_kernels.policy_cuda.recipe import on_host
from fastmagn_kernels.policy_cuda.table import translated
from tests.helpers.cuda_kernels import alone_name, images_name, views_name
from tests.ptx.arguments import NumbaKernel, numba_kernel
from tests.ptx.building import Builder
from tests.ptx.running import Memory, Report, in_out, output, scratch

NUM_SMS = 132
HOST_TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "uint8": np.uint8}

# Runs a kernel: its source, its name, and then grid, block, bytes of shared memory and arguments.
RunKernel = Callable[..., object]


def run_on_device(
    source: Sequence[Any],
    name: str,
    grid: int,
    block: tuple[int, int],
    shared_bytes: int,
    arguments: Sequence[Any],
    order: int = 0,
) -> None:
    """Run a kernel on the device, whose order of blocks is its own; arrays that it writes are copied back."""
    capability = torch.cuda.get_device_capability()
    code = compiling.machine_code(name, lambda: source, capability)
    arguments = [a.array if isinstance(a, Memory) else a for a in arguments]
    arrays = list(_arrays_in(arguments))
    memory = {}  # arrays that start at the same byte are one array on the device
    for array in sorted(arrays, key=lambda array: -array.nbytes):
        memory.setdefault(array.ctypes.data, (array, torch.from_numpy(array.view(np.uint8)).cuda()))

    def on_device(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return launching.Array(memory[value.ctypes.data][1].data_ptr(), value.size, value.itemsize)
        return type(value)(*map(on_device, value)) if isinstance(value, tuple) else value

    values = tuple(map(on_device, arguments))
    packed = launching.layout(source[1]).pack(*launching.flattened(values))
    stream = torch.cuda.current_stream().cuda_stream
    loaded = compiling.load(code)
    launching.launch(int(loaded.handle), packed, grid, block, shared_bytes, stream)
    for array, tensor in memory.values():
        if array.flags.writeable:
            array.view(np.uint8)[:] = tensor.cpu().numpy()


def _arrays_in(values: Iterable[Any]) -> Iterator[np.ndarray]:
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, tuple):
            yield from _arrays_in(value)


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


def plan(
    images: np.ndarray, params: ViewParams, in_shared: bool | None = None, dtype: torch.dtype = torch.float32
) -> Launch:
    """The launch for images [B, H, W, 3] on a device of 132 multiprocessors."""
    batch, height, width, _ = images.shape
    views, chains = params.view_spec.num_views, params.augment.mixture_width
    return plan_launch(batch, views, height, width, chains, NUM_SMS, dtype.itemsize, in_shared)


def run_views(
    run: RunKernel,
    images: np.ndarray,
    params: ViewParams,
    dtype: torch.dtype = torch.float32,
    launch: Launch | None = None,
    out: np.ndarray | None = None,
    alone: bool = False,
    **options: Any,
) -> torch.Tensor:
    """All views of uint8 [B, H, W, 3] as [V, B, H, W, 3] of `dtype`; with `alone`, AugMix views only."""
    launch = launch or plan(images, params, dtype=dtype)
    recipe = [] if params.recipe is None else [on_host(params.recipe)]
    element = str(dtype).removeprefix("torch.")
    views = params.view_spec.num_views - alone
    shape = (views, *images.shape)
    source = kernel_source(element, launch.in_shared, bool(recipe), alone)
    in_shared = launch.in_shared
    name = alone_name(element, in_shared) if alone else views_name(element, in_shared, bool(recipe))
    out = np.full(int(np.prod(shape)), 1.5, HOST_TYPES[element]) if out is None else out.reshape(-1)
    # Where the ends of chains are kept in the views' memory, it is read and written more than once.
    words = scratch(out.view(np.uint32), "views") if launch.kept else np.zeros(1, np.uint32)
    run(
        source,
        name,
        launch.blocks,
        launch_bounds(launch.in_shared, bool(recipe))[0],
        launch.shared_bytes,
        [
            np.ascontiguousarray(images).reshape(-1),
            params.indices,
            params.settings,
            launch.groups,
            launch.row_bytes,
            launch.kept,
            np.asarray(rotation_table()).reshape(-1),
            scratch(np.full(max(1, launch.scratch_bytes // 4), 0x63636363, np.uint32), "scratch"),
            scratch(out, "views") if launch.kept else output(out, "views"),
            words,
            *recipe,
        ],
        **options,
    )
    return torch.from_numpy(out).view(dtype).reshape(shape)


def run_policy(
    run: RunKernel,
    images: np.ndarray,
    params: ViewParams,
    policy: Policy,
    planar: bool = False,
    in_shared: bool | None = None,
    **options: Any,
) -> np.ndarray:
    """A policy on each of uint8 [B, H, W, 3], or [B, 3, H, W] if `planar`."""
    launch = plan_launch(len(images), 1, *params.image_size, 0, NUM_SMS, in_shared=in_shared)
    out = np.full(images.size, 173, np.uint8)
    run(
        policy_source(launch.in_shared),
        images_name(launch.in_shared),
        launch.blocks,
        launch_bounds(launch.in_shared)[0],
        launch.shared_bytes,
        [
            np.ascontiguousarray(images).reshape(-1),
            params.indices,
            params.settings,
            planar,
            launch.row_bytes,
            translated(make_table(policy, *params.image_size)),
            np.asarray(rotation_table()).reshape(-1),
            scratch(np.full(max(1, launch.scratch_bytes // 4), 0x63636363, np.uint32), "scratch"),
            output(out, "out"),
        ],
        **options,
    )
    return out.reshape(images.shape)


def run_operations(run: RunKernel, ops: np.ndarray, magnitudes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Operation `ops[i]`, int64 [B], at `magnitudes[i]`, float64, on each of uint8 [B, H, W, 3]."""
    batch, height, width, _ = images.shape
    row_bytes = 12 * -(-height * width // 4)
    rows = np.full((2, batch, row_bytes), 173, np.uint8)  # an element that is not written shows
    rows[0, :, : images[0].size] = images.reshape(batch, -1)
    words = in_out(rows.reshape(-1).view(np.uint32), "rows")
    arguments = [ops, magnitudes, words, height, width, row_bytes, np.asarray(rotation_table()).reshape(-1)]
    run((_operations, _OPERATIONS_SIGNATURE), "operations", batch, BLOCK_IN_SHARED, 0, arguments)
    return words.array.view(np.uint8).reshape(rows.shape)[1, :, : images[0].size].reshape(images.shape)


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


_OPERATIONS_SIGNATURE = types.void(
    types.int64[::1], types.float64[::1], types.uint32[::1], types.int32, types.int32, types.uint32, types.float64[::1]
)

"""Parameters of CUDA kernels are packed as numba passes them, and reach the driver. It needs no GPU."""

import ctypes

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.config.schema import AugmentConfig
from fastmagn_kernels.augmix_cuda import launching
from fastmagn_kernels.augmix_cuda.launching import Array
from fastmagn_kernels.augmix_cuda.views import kernel_source
from fastmagn_kernels.policy_cuda.images import kernel_source as policy_source
from fastmagn_kernels.policy_cuda.recipe import on_host
from tests.ptx.arguments import _flattened


def test_parameters_lie_as_numba_passes_them():
    spec = ViewSpec(num_augmix_views=2, num_noise_views=1)
    settings = sample_view_params(2**63 + 5, 2**32 - 1, np.arange(3), spec, AugmentConfig(), (32, 30)).settings
    types = (np.uint8, np.int64, None, None, None, None, np.float64, np.uint32, np.float32, np.uint32)
    arrays = [None if kind is None else np.zeros(8 + n, kind) for n, kind in enumerate(types)]
    numbers = iter((settings, 3, 2880, 2))
    arguments = [next(numbers) if array is None else array for array in arrays]
    signature = kernel_source("float32", True)[1]
    expected = b""
    for kind, argument in zip(signature.args, arguments, strict=True):
        for part in _flattened(kind, argument, "", []):
            expected += bytes(-len(expected) % len(part)) + part
    values = tuple(Array(a.ctypes.data, a.size, a.itemsize) if isinstance(a, np.ndarray) else a for a in arguments)
    assert launching.layout(signature).pack(*launching.flattened(values)) == expected


@pytest.mark.parametrize("kernel", ["views with a recipe", "images of a policy"])
def test_nested_parameters_lie_as_numba_passes_them(kernel):
    augment = AugmentConfig(policy="randaugment", erase_probability=0.3, erase_fill="mean", patch_l2=2.0)
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    params = sample_view_params(2**63 + 5, 7, np.arange(3), spec, augment, (32, 30))
    recipe, (indices, table, words, out) = on_host(params.recipe), map(np.zeros, ((3,), (4,), (5,), (6,)))
    arrays = [out.astype(np.uint8), indices.astype(np.int64)]
    if kernel == "images of a policy":
        signature = policy_source(True)[1]
        arguments = [*arrays, params.settings, True, 12, recipe.table, table, words.astype(np.uint32), arrays[0]]
    else:
        signature = kernel_source("float32", True, True)[1]
        arguments = [*arrays, params.settings, 1, 12, 0, table, words.astype(np.uint32), out.astype(np.float32)]
        arguments += [words.astype(np.uint32), recipe]
    expected = b""
    for kind, argument in zip(signature.args, arguments, strict=True):
        for part in _flattened(kind, argument, "", []):
            expected += bytes(-len(expected) % len(part)) + part
    values = tuple(map(_as_on_the_device, arguments))
    assert launching.layout(signature).pack(*launching.flattened(values)) == expected


def _as_on_the_device(value):
    if isinstance(value, np.ndarray):
        return Array(value.ctypes.data, value.size, value.itemsize)
    return type(value)(*map(_as_on_the_device, value)) if isinstance(value, tuple) else value


def test_the_driver_gets_the_packed_parameters(monkeypatch):
    calls = []

    def launch(*arguments):
        extra = (ctypes.c_size_t * 5).from_address(arguments[-1])
        size = ctypes.c_size_t.from_address(extra[3]).value
        calls.append((*arguments[:-1], list(extra[0:5:2]), ctypes.string_at(extra[1], size)))
        return (launching.driver.CUresult.CUDA_SUCCESS,)

    monkeypatch.setattr(launching.driver, "cuLaunchKernel", launch)
    launching.launch(77, b"\0parameters\0", 5, (32, 8), 1024, 9)
    # The names in extra are CUDA's: 1 is the buffer, 2 its size, 0 the end.
    assert calls == [(77, 5, 1, 1, 32, 8, 1, 1024, 9, 0, [1, 2, 0], b"\0parameters\0")]


def test_a_launch_that_the_driver_refuses_is_an_error(monkeypatch):
    refused = launching.driver.CUresult.CUDA_ERROR_INVALID_VALUE
    monkeypatch.setattr(launching.driver, "cuLaunchKernel", lambda *arguments: (refused,))
    with pytest.raises(RuntimeError) as error:
        launching.launch(77, b"", 5, (32, 8), 1024, 9)
    assert (
        str(error.value) == "The CUDA driver refuses a launch of 5 blocks of (32, 8) threads: CUDA_ERROR_INVALID_VALUE."
    )


@pytest.mark.parametrize("bound", [True, False])
def test_a_thread_without_a_context_gets_the_devices(bound, monkeypatch):
    """What PyTorch binds in its first call is missing in a thread whose tensors are all there already."""
    done, calls = launching.driver.CUresult.CUDA_SUCCESS, []
    monkeypatch.setattr(launching.driver, "cuCtxGetCurrent", lambda: (done, 5 if bound else 0))
    monkeypatch.setattr(launching.driver, "cuDevicePrimaryCtxRetain", lambda device: (done, 100 + device))
    monkeypatch.setattr(launching.driver, "cuCtxSetCurrent", lambda context: (calls.append(context), (done,))[1])
    launching.bind_context(3)
    assert calls == ([] if bound else [103])


@pytest.mark.parametrize("name", ["cuCtxGetCurrent", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"])
def test_a_context_that_the_driver_refuses_is_an_error(name, monkeypatch):
    done, refused = launching.driver.CUresult.CUDA_SUCCESS, launching.driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    monkeypatch.setattr(launching.driver, "cuCtxGetCurrent", lambda: (done, 0))
    monkeypatch.setattr(launching.driver, "cuDevicePrimaryCtxRetain", lambda device: (done, 7))
    monkeypatch.setattr(launching.driver, "cuCtxSetCurrent", lambda context: (done,))
    answer = (refused,) if name == "cuCtxSetCurrent" else (refused, 0)
    monkeypatch.setattr(launching.driver, name, lambda *arguments: answer)
    with pytest.raises(RuntimeError, match=r"^The CUDA driver refuses the context of device 3: CUDA_ERROR_OUT_OF_ME"):
        launching.bind_context(3)

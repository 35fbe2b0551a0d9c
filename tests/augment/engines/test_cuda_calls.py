"""The calls of the CUDA engines without a GPU: what they launch is run from the kernels' PTX (tests/ptx)."""

import ctypes
import struct
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numba import types

from fastmagn import AugMix
from fastmagn.augment import augmix as augmix_module
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import RandAugmentPolicy
from fastmagn.augment.policies.own import read_policy
from fastmagn.augment.policies.recipe import read_recipe
from fastmagn.augment.policies.table import Policy, make_table
from fastmagn.augment.views import Engine
from fastmagn.config.schema import AugmentConfig

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
from fastmagn.augment.engines import numba_cuda, on_device, policy_cuda
from fastmagn_kernels.augmix_cuda import compiling, launching
from fastmagn_kernels.augmix_cuda.views import kernel_source
from fastmagn_kernels.policy_cuda.images import kernel_source as policy_source
from fastmagn_kernels.policy_cuda.table import translated
from tests.augment.engines.test_cuda import PICTURES, assert_equal, on_the_host, params_for
from tests.augment.engines.test_cuda_policies import RECIPES, by_pillow, policy_params
from tests.helpers.cuda_kernels import alone_name, images_name, views_name
from tests.ptx.arguments import NumbaKernel, numba_kernel
from tests.ptx.running import Memory


class FromPtxAtAddresses:
    """A driver whose launches run one kernel's PTX on the memory whose addresses it gets."""

    def __init__(self, kernel: NumbaKernel) -> None:
        self.kernel, self.launches = kernel, 0
        self.format = "".join(map(launching._letters, kernel.types))

    def __call__(self, handle, packed, blocks, threads, shared_bytes, stream) -> None:
        values = struct.unpack(f"@{self.format}", packed)
        parameters = [struct.pack(letter, value) for letter, value in zip(_each(self.format), values, strict=True)]
        arrays, position = [], 0
        for kind in _leaves(self.kernel.types):
            if isinstance(kind, types.Array):
                size, itemsize, address = values[position + 2 : position + 5]
                if address and size:
                    memory = (ctypes.c_uint8 * (size * itemsize)).from_address(address)
                    array = np.frombuffer(memory, np.uint8)
                    if not any(np.shares_memory(array, other.array) for other in arrays):
                        arrays.append(Memory(array, writable=True, once=False, name=f"parameter {position}"))
                position += 7
            else:
                position += 1
        report = self.kernel.kernel.launch(blocks, threads, parameters, arrays, shared_bytes=shared_bytes)
        assert not report.faults, "\n".join(map(str, report.faults))
        self.launches += 1


def _each(letters: str) -> list[str]:
    return list(letters.replace("7q", "qqqqqqq"))


def _leaves(kinds):
    for kind in kinds:
        if isinstance(kind, types.BaseTuple):
            yield from _leaves(kind.types)
        else:
            yield kind


@pytest.fixture
def launched(monkeypatch, ptx_builder):
    """(name, source) -> a driver for that kernel; tensors stay in the CPU's memory."""
    properties = SimpleNamespace(multi_processor_count=132)
    for name, value in (
        ("device", lambda device: nullcontext()),
        ("get_device_properties", lambda device: properties),
        ("get_device_capability", lambda device=None: (9, 0)),
        ("current_stream", lambda device=None: SimpleNamespace(cuda_stream=1)),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(compiling, "machine_code", lambda *arguments: b"")
    monkeypatch.setattr(compiling, "load", lambda code: SimpleNamespace(handle=5))
    of_a_device = (on_device.load_kernel, on_device.num_sms, on_device.indices_on_device, on_device.rotations_on_device)

    def start(name, source):
        driver = FromPtxAtAddresses(numba_kernel(ptx_builder, *source, name=name))
        monkeypatch.setattr(launching, "launch", driver)
        monkeypatch.setattr(launching, "bind_context", lambda device: None)
        return driver

    yield start
    for cached in (*of_a_device, numba_cuda._recipe, policy_cuda._table):
        cached.cache_clear()


@pytest.mark.slow
def test_views_with_a_recipe_are_one_launch(launched, pictures):
    driver = launched(views_name("float32", True, True), kernel_source("float32", True, True))
    images = pictures(9, 8)[PICTURES]
    params = params_for(images, RECIPES["everything"], ViewSpec(num_augmix_views=1, num_noise_views=1))
    out = torch.full((3 * len(images), 9, 8, 3), torch.nan)
    numba_cuda.fill_views(torch.from_numpy(images.copy()), params, out)
    assert driver.launches == 1
    assert_equal(out.reshape(3, *images.shape), on_the_host(images, params))


def test_augmix_alone_is_one_launch_into_the_images_form(launched, monkeypatch, pictures):
    driver = launched(alone_name("uint8", True), kernel_source("uint8", True, alone=True))
    engine = Engine(backend="numba", device="cuda", fill_views=numba_cuda.fill_views)
    monkeypatch.setattr(augmix_module, "choose_engine", lambda backend, device: engine)
    images, indices = torch.from_numpy(pictures(9, 8).copy()).permute(0, 3, 1, 2), np.arange(14)
    augmix = AugMix(aug_severity=10, all_operations=True, seed=3)
    params = sample_view_params(3, 2, indices, augmix.view_spec, augmix.augment, (9, 8))
    in_pixels, memory = images.contiguous(memory_format=torch.channels_last), torch.zeros(images.numel() + 1).byte()
    misaligned = memory[1:].view(14, 9, 8, 3).permute(0, 3, 1, 2)  # the kernel stores four bytes at once
    outs = [torch.full_like(given, 173) for given in (in_pixels, images.contiguous(), images[:, :1])]
    for number, out in enumerate([*outs, misaligned], start=1):
        given = images[:, : out.shape[1]]
        augmix.fill(given, params, out)
        assert driver.launches == number
        assert torch.equal(out, augmix(given, indices=indices, epoch=2))


@pytest.mark.parametrize("planar", [True, False])
def test_a_policy_of_images_is_one_launch(launched, planar, pictures):
    driver = launched(images_name(True), policy_source(True))
    images, policy = pictures(9, 8), Policy(RandAugmentPolicy(), fill=(7, 130, 255))
    params = policy_params(len(images), (9, 8))
    given = torch.from_numpy(images.copy()).permute(0, 3, 1, 2)
    given = given.contiguous() if planar else given
    out = torch.full_like(given, 173)
    policy_cuda.change_images(given, params, policy, out)
    assert driver.launches == 1
    np.testing.assert_array_equal(out.permute(0, 2, 3, 1).numpy(), by_pillow(images, params, policy))


def test_a_second_run_copies_the_policy_that_its_file_says_now(monkeypatch, tmp_path, pictures):
    """A launch is given what the file said when the run began, also after the file has changed."""
    launches, images, cpu = [], torch.from_numpy(pictures(9, 8).copy()), torch.device("cpu")
    plan = SimpleNamespace(in_shared=True, groups=1, row_bytes=1, kept=1, scratch_bytes=0, blocks=1, shared_bytes=0)
    kernel = SimpleNamespace(handle=5, parameters=SimpleNamespace(pack=lambda *arguments: arguments))
    for name, value in (
        ("plan_launch", lambda *arguments: plan),
        ("num_sms", lambda device: 132),
        ("indices_on_device", lambda indices, device, stream: images),
        ("rotations_on_device", lambda device: images),
        ("load_kernel", lambda *arguments: kernel),
        ("copied", lambda arrays, device: (arrays, [])),
    ):
        monkeypatch.setattr(numba_cuda, name, value)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=1))
    monkeypatch.setattr(launching, "flattened", lambda arguments: arguments)
    monkeypatch.setattr(launching, "launch", lambda handle, packed, *rest: launches.append(packed[-1]))
    monkeypatch.setattr(launching, "bind_context", lambda device: None)
    file, spec = tmp_path / "mine.yaml", ViewSpec(num_augmix_views=0, num_noise_views=0)
    augment = AugmentConfig(policy=str(file))

    def launched_table() -> list:
        params = sample_view_params(0, 0, np.arange(14), spec, augment, (9, 8))
        numba_cuda.fill_views(images, params, torch.empty((14, 9, 8, 3), device=cpu))
        return [np.asarray(values).tolist() for values in launches[-1].table]

    try:
        for operation in ("invert", "equalize"):
            file.write_text(f"steps:\n  - - {{operation: {operation}}}\n")
            table = translated(make_table(read_policy(file), 9, 8))
            read_recipe(augment)
            for _ in range(2):
                assert launched_table() == [np.asarray(values).tolist() for values in table]
                file.write_text("steps:\n  - - {operation: autocontrast}\n")
    finally:
        numba_cuda._recipe.cache_clear()

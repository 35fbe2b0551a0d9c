"""The CUDA engine: on the device where there is one, else from its PTX, which runs on the CPU (tests/ptx)."""

import dataclasses
import itertools
import mmap
import re
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn import AugMix, TrivialAugment
from fastmagn.augment.engines import numba_cpu as numba_backend
from fastmagn.augment.engines import pil
from fastmagn.augment.operations import OPERATIONS
from fastmagn.augment.params import JITTER_ORDERS, ViewParams, ViewSpec, sample_view_params
from fastmagn.augment.views import VIEW_DTYPES, make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from tests.helpers.operations import magnitudes
from tests.helpers.processes import run
from tests.helpers.tiers import slow, slow_but

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
from fastmagn_kernels.augmix_cuda.planning import plan_launch
from fastmagn_kernels.augmix_cuda.storing import ELEMENTS, bfloat16_bits, unit
from fastmagn_kernels.augmix_cuda.views import kernel_source
from tests.augment.engines.cuda_runs import FromPtx, RunKernel, plan, run_on_device, run_operations, run_views
from tests.helpers.cuda_kernels import views_name
from tests.ptx.arguments import compile_once

ON_DEVICE = torch.cuda.is_available()
from_ptx = pytest.mark.skipif(ON_DEVICE, reason="the device runs all blocks, in an order of its own")
on_device = pytest.mark.skipif(not ON_DEVICE, reason="needs a CUDA device")

SPEC = ViewSpec(num_augmix_views=2, num_noise_views=1)
PAPER = AugmentConfig(aug_severity=10, random_aug_severity=True, horizontal_flip=True, color_jitter=0.25)
CONFIGS = {
    "paper": PAPER,
    "default": AugmentConfig(),
    "all_operations": dataclasses.replace(PAPER, all_operations=True, mixture_depth=4, rotation_deg=30.0),
    "wide": AugmentConfig(mixture_width=8, mixture_depth=1, color_jitter=1.0, crop_padding_px=10, sigma_max=1.0),
}
SIZES = [(32, 32), (20, 33), (1, 1), (2, 5)]
PICTURES = [0, 6, 8, 2, 4, 11]  # noise, ramp, photograph, two values, white, a photograph's crop


def params_for(images: np.ndarray, augment: AugmentConfig = PAPER, spec: ViewSpec = SPEC, seed: int = 3) -> ViewParams:
    indices = np.arange(len(images)) * 40_503 + 7
    return sample_view_params(seed, 2, indices, spec, augment, images.shape[1:3])


def on_the_host(images: np.ndarray, params: ViewParams, fill_views=numba_backend.fill_views) -> torch.Tensor:
    shape = (params.view_spec.num_views, *images.shape)
    out = torch.full((shape[0] * shape[1], *shape[2:]), torch.nan)
    fill_views(torch.from_numpy(np.array(images)), params, out)
    return out.reshape(shape)


def assert_equal(made: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(made, expected, rtol=0, atol=0)


@pytest.fixture(scope="session")
def cuda(request) -> RunKernel:
    """Runs kernels on the device or, where there is none, from their PTX, where any fault fails the test."""
    return run_on_device if ON_DEVICE else FromPtx(request.getfixturevalue("ptx_builder"))


TINY = [((1, 1), 4), ((2, 5), 40), ((3, 3), 12), ((9, 8), 8)]  # size, number of magnitudes


@pytest.mark.parametrize("sizes", [TINY, *slow([((9, 8), 40), ((20, 33), 3), ((32, 32), 3)])], ids=["tiny", "small"])
@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_operation_equals_pillow(cuda, op, sizes, pictures):
    for size, count in sizes:
        chosen = magnitudes(op, *size)
        chosen = np.array(chosen)[np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)]
        images = np.resize(pictures(*size), (max(len(chosen), 4 if min(size) < 9 else 3), *size, 3))
        chosen = np.resize(chosen, len(images))
        expected = [
            np.asarray(pil.apply_operation(Image.fromarray(image), op.id, float(magnitude)))
            for image, magnitude in zip(images, chosen, strict=True)
        ]
        made = run_operations(cuda, np.full(len(images), op.id), chosen, images)
        np.testing.assert_array_equal(made, expected, err_msg=f"{size}, magnitudes {chosen}")


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", slow_but(SIZES, (1, 1), (2, 5)), ids=lambda size: f"{size[0]}x{size[1]}")
def test_views_equal_the_cpu_engines_to_the_bit(cuda, size, config, pictures):
    images = pictures(*size)[PICTURES[:2] if min(size) > 5 else PICTURES]
    params = params_for(images, CONFIGS[config])
    made = run_views(cuda, images, params)
    assert_equal(made, on_the_host(images, params))
    reference = on_the_host(images, params, pil.fill_views)
    assert_equal(made[0], reference[0])
    torch.testing.assert_close(made, reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [ViewSpec(num_augmix_views=j, num_noise_views=n) for j, n in ((0, 0), (0, 3), (1, 0), (3, 2))],
    ids=lambda spec: f"J{spec.num_augmix_views} N{spec.num_noise_views}",
)
def test_any_views(cuda, spec, pictures):
    images = pictures(9, 8)[PICTURES]
    params = params_for(images, spec=spec, seed=2**63 + 5)
    assert_equal(run_views(cuda, images, params), on_the_host(images, params))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize(
    "where",
    slow_but([((2, 5), True), ((9, 8), True), ((3, 5), False), ((4, 7), False)], ((2, 5), True), ((4, 7), False)),
    ids=str,
)
def test_augmix_views_alone_are_those_beside_the_clean_one(cuda, where, dtype, pictures):
    size, in_shared = where
    images = pictures(*size)[PICTURES]
    spec = ViewSpec(num_augmix_views=2, num_noise_views=0)
    params = params_for(images, CONFIGS["all_operations"], spec)
    expected = on_the_host(images, params)[1:]
    if dtype == torch.uint8:
        expected = (expected * 255).round().to(torch.uint8)
    whole = plan_launch(len(images), 2, *size, 3, 132, dtype.itemsize, in_shared)
    for groups in (1, 2):
        launch = whole._replace(groups=groups, blocks=min(whole.blocks, groups * len(images)))
        assert_equal(run_views(cuda, images, params, dtype, launch, alone=True), expected)


def test_every_jitter_order_is_that_of_the_table(cuda, pictures):
    images = np.repeat(pictures(3, 3)[[0]], 40, 0)
    params = params_for(
        images, dataclasses.replace(PAPER, color_jitter=1.0), ViewSpec(num_augmix_views=0, num_noise_views=0)
    )
    assert set(params.base.jitter_order) == set(range(len(JITTER_ORDERS)))
    assert_equal(run_views(cuda, images, params), on_the_host(images, params, pil.fill_views))


@pytest.mark.parametrize("dtype", slow_but([torch.float16, torch.bfloat16], torch.bfloat16), ids=str)
@pytest.mark.parametrize("size", slow_but([(9, 8), (3, 3)], (3, 3)), ids=lambda size: f"{size[0]}x{size[1]}")
def test_half_precision_views_are_rounded_float32(cuda, size, dtype, pictures):
    images = pictures(*size)[PICTURES]
    params = params_for(images)
    assert_equal(run_views(cuda, images, params, dtype), run_views(cuda, images, params).to(dtype))


@pytest.mark.parametrize("dtype", slow_but(VIEW_DTYPES, torch.float32, torch.float16), ids=str)
@pytest.mark.parametrize("size", [(3, 5), (4, 7)], ids=["rows", "in the views' memory"])  # of whole words: the second
def test_scratch_in_global_memory_gives_the_same_views(cuda, size, dtype, pictures):
    images = pictures(*size)[PICTURES]
    params = params_for(images, CONFIGS["all_operations"])
    expected = run_views(cuda, images, params, dtype)
    launch = plan(images, params, in_shared=False, dtype=dtype)
    assert (launch.in_shared, plan(images, params).in_shared) == (False, True)
    assert launch.kept == (2 if size == (4, 7) else 0)
    assert_equal(run_views(cuda, images, params, dtype, launch), expected)
    for blocks in (1, 5):  # a block takes one image after another
        assert_equal(run_views(cuda, images, params, dtype, launch._replace(blocks=blocks)), expected)


MATRIX = [(1, 1), (2, 5), (3, 3), (9, 8), (20, 33), (31, 33), (32, 32), (33, 31), (48, 48), (64, 64)]
LARGE = [(224, 180), (225, 225), (1, 300), (300, 1), (2, 1000), (257, 1)]


@from_ptx
@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", MATRIX, ids=lambda size: f"{size[0]}x{size[1]}")
def test_matrix_of_sizes_in_several_orders(cuda, size, config, pictures):
    images = pictures(*size)[PICTURES[:3] if max(size) > 20 else PICTURES]
    params = params_for(images, CONFIGS[config])
    expected = on_the_host(images, params)
    for order, in_shared in enumerate([None, False] if max(size) > 20 else [None, False, None, False]):
        launch = plan(images, params, in_shared)
        assert_equal(run_views(cuda, images, params, launch=launch, order=order + 1), expected)


@from_ptx
@pytest.mark.slow
@pytest.mark.parametrize("size", LARGE, ids=lambda size: f"{size[0]}x{size[1]}")
def test_large_and_long_images(cuda, size):
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    params = params_for(images, CONFIGS["all_operations"])
    assert_equal(run_views(cuda, images, params, order=3), on_the_host(images, params))


@from_ptx
@pytest.mark.slow
@pytest.mark.parametrize("dtype", VIEW_DTYPES, ids=str)
@pytest.mark.parametrize("size", [(33, 31), (64, 64), (225, 225)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_matrix_of_dtypes(cuda, size, dtype, pictures):
    images = pictures(*size)[PICTURES[:2]]
    params = params_for(images, CONFIGS["all_operations"])
    assert_equal(run_views(cuda, images, params, dtype, order=2), on_the_host(images, params).to(dtype))


@pytest.mark.slow
@pytest.mark.parametrize(("j", "n"), [(0, 0), (0, 3), (1, 0), (3, 2), (7, 4)])
def test_extreme_seeds_and_indices(cuda, j, n, pictures):
    images = pictures(9, 8)[PICTURES[:4]]
    indices = np.array([2**32 - 1, 0, 2**31, 5])
    spec = ViewSpec(num_augmix_views=j, num_noise_views=n)
    for seed in (0, 2**63 + 5, 2**64 - 1):
        params = sample_view_params(seed, 2**32 - 1, indices, spec, CONFIGS["all_operations"], (9, 8))
        assert_equal(run_views(cuda, images, params), on_the_host(images, params))


@from_ptx
@pytest.mark.parametrize(("batch", "side"), [(3_000_000, 1), (600_000, 32)], ids=["3 million", "more than 2^32 values"])
def test_last_blocks_of_a_batch_that_no_memory_holds(cuda, batch, side):
    """Memory that is not touched is not there: the last images are drawn at random, the others were never written."""
    last = 20 if side == 1 else 2
    images = sparse((batch, side, side, 3), np.uint8)
    images[-last:] = np.random.default_rng(0).integers(0, 256, images[-last:].shape)
    params = sample_view_params(3, 2, np.arange(batch) * 7, SPEC, PAPER, (side, side))
    launch = plan(images, params)
    assert launch.blocks == batch * launch.groups
    out = sparse((SPEC.num_views * batch, images[0].size), np.float32)
    blocks = range((batch - last) * launch.groups, batch * launch.groups)
    made = run_views(cuda, images, params, launch=launch, out=out, blocks=blocks)[:, -last:]
    expected = sample_view_params(3, 2, params.indices[-last:], SPEC, PAPER, (side, side))
    assert_equal(made, on_the_host(images[-last:], expected))


def sparse(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array of zeros whose pages take memory only once they are touched."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    no_reserve = 0x4000  # Linux's MAP_NORESERVE, which Python's mmap names from 3.13 on only
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
    return np.frombuffer(memory, dtype).reshape(shape)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("config", CONFIGS)
def test_real_images(cuda, config, cifar_images):
    for first in (0, 500):
        images = np.ascontiguousarray(cifar_images[first : first + 12])
        params = params_for(images, CONFIGS[config], seed=first)
        assert_equal(run_views(cuda, images, params), on_the_host(images, params))


@pytest.mark.slow
def test_views_do_not_depend_on_how_blocks_share_them(cuda, pictures):
    images = pictures(9, 8)[PICTURES]
    params = params_for(images)
    expected = on_the_host(images, params)
    for groups in range(1, 5):
        launch = plan(images, params)._replace(groups=groups, blocks=groups * len(images))
        assert_equal(run_views(cuda, images, params, launch=launch), expected)


@pytest.mark.slow
def test_views_do_not_depend_on_batch_or_order(cuda, pictures):
    images = pictures(9, 8)[PICTURES]
    indices = np.array([7, 0, 2**32 - 1, 49_999, 60_000, 4])

    def run(rows: list[int]) -> torch.Tensor:
        return run_views(cuda, images[rows], sample_view_params(5, 2**32 - 1, indices[rows], SPEC, PAPER, (9, 8)))

    whole = run(list(range(6)))
    order = [3, 5, 0, 2, 4, 1]
    assert_equal(run(order), whole[:, order])
    assert_equal(run([2]), whole[:, [2]])


@on_device
@pytest.mark.parametrize("dtype", VIEW_DTYPES, ids=str)
@pytest.mark.parametrize("size", [*SIZES, (224, 180)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_views_on_the_device(size, dtype, pictures):
    images = np.tile(pictures(*size), (1 if max(size) > 100 else 40, 1, 1, 1))
    params = params_for(images, CONFIGS["all_operations"])
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    expected = make_views(tensor, params, "numba", dtype)
    made = make_views(tensor.cuda(), params, "numba", dtype)
    assert made.is_cuda
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert_equal(made.cpu(), expected)


@on_device
def test_views_are_made_on_the_current_stream_without_waiting(cuda, pictures):
    images = torch.from_numpy(np.tile(pictures(32, 32), (40, 1, 1, 1))).permute(0, 3, 1, 2)
    params = params_for(images.permute(0, 2, 3, 1).numpy())
    expected = make_views(images, params, "numba")
    on_cuda = images.cuda()
    make_views(on_cuda, params, "numba")  # compiles
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(500_000_000)
        changed = on_cuda.clone()  # not before the stream comes to it
        torch.cuda.set_sync_debug_mode("error")
        try:
            made = make_views(changed, params, "numba")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        still_busy = not stream.query()
    stream.synchronize()
    assert still_busy
    assert_equal(made.cpu(), expected)


@on_device
@pytest.mark.parametrize("transform", [AugMix(seed=0), TrivialAugment(seed=0)], ids=["AugMix", "TrivialAugment"])
def test_a_new_thread_launches_without_a_call_of_pytorchs_before(transform, pictures):
    images = torch.from_numpy(np.tile(pictures(32, 32), (4, 1, 1, 1))).permute(0, 3, 1, 2).cuda()
    outs, stream = [torch.empty_like(images) for _ in range(2)], []
    transform(images, out=outs[0])
    started = threading.Thread(target=lambda: stream.append(transform(images, out=outs[1])))
    started.start()
    started.join()
    assert len(stream) == 1, "the thread's call failed"
    torch.cuda.synchronize()
    assert not outs[1].equal(torch.zeros_like(outs[1]))


@on_device
def test_memory_stays_within_64_mib_beside_the_views(pictures):
    images = torch.from_numpy(np.tile(pictures(224, 180), (4, 1, 1, 1))).permute(0, 3, 1, 2).cuda()
    params = params_for(images.permute(0, 2, 3, 1).cpu().numpy())
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    made = make_views(images, params, "numba")
    images_copy = images.numel()  # channels last
    assert torch.cuda.max_memory_allocated() - before <= made.numel() * 4 + images_copy + 64 * 2**20


@pytest.mark.parametrize("in_shared", [True, False], ids=["shared", "scratch"])
@pytest.mark.parametrize("element", slow_but(ELEMENTS, "float32"))
def test_kernel_compiles_for_hopper_and_rounds_as_the_cpu_does(ptx_builder, element, in_shared):
    ptx = compile_once(ptx_builder, *kernel_source(element, in_shared), name=views_name(element, in_shared))
    assert ".target sm_90" in ptx
    assert ptx.count(".visible .entry") == 1
    threads, blocks = (256, 4) if in_shared else (1024, 1)
    assert re.search(rf"\.maxntid {threads}\b", ptx)
    assert re.search(rf"\.minnctapersm {blocks}\b", ptx)
    assert not re.findall(r"\bfma\.", ptx)  # nothing fused
    assert not re.findall(r"\b(?:mul|add|sub)\.f(?:32|64)", ptx)  # nor left for the assembler to fuse: .rn says not to
    assert not re.findall(r"\.approx|\.full|\.ftz", ptx)
    assert {"sqrt.rn.f32", "div.rn.f32", "mul.rn.f64"} <= set(re.findall(r"[a-z]+\.rn\.f\d\d", ptx))
    assert not re.findall(r"\.local|\bcall", ptx)  # no stack, everything inlined
    where = "shared" if in_shared else "global"
    assert len(re.findall(rf"ld\.{where}\.u8", ptx)) > 50  # addressed as what it is, not through generic addresses
    assert not re.findall(r"\b(?:ld|st)\.(?:volatile\.)?[busf]\d", ptx)


def test_unit_is_the_rounded_quotient_for_every_value():
    values = np.arange(256, dtype=np.uint8)
    made = np.array([unit(value) for value in values], np.float32)
    np.testing.assert_array_equal(made, (values / 255.0).astype(np.float32))


def test_bfloat16_bits_are_torchs():
    words = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    words = np.concatenate(
        [words, (words & 0xFFFF0000) | 0x8000, (words & 0xFFFF0000) | 0x7FFF]
    )  # ties, and just below
    values = words.view(np.float32)
    values = values[np.isfinite(values)]
    bits = np.array([bfloat16_bits(value) for value in values])
    np.testing.assert_array_equal(bits, torch.from_numpy(values).bfloat16().view(torch.uint16).numpy())


def test_launches_cover_the_batch_within_their_memory():
    sizes = [1, 5, 32, 33, 64, 96, 224, 1024]
    for batch, side, width, num_views in itertools.product([1, 7, 512, 60_000], sizes, [1, 3, 8], [1, 4]):
        launch = plan_launch(batch, num_views, side, side, width, num_sms=132)
        assert 3 * side**2 <= launch.row_bytes < 3 * side**2 + 12
        rows_bytes = (2 + width - launch.kept) * launch.row_bytes
        assert 1 <= launch.groups <= num_views
        assert launch.blocks <= batch * launch.groups
        if launch.in_shared:
            assert launch.blocks == batch * launch.groups
            assert launch.shared_bytes == rows_bytes <= 42 * 1024  # 48 KiB, of which 6 KiB for the kernel's own
        else:
            assert launch.kept < width
            assert launch.scratch_bytes == launch.blocks * rows_bytes <= 64 * 2**20
    assert plan_launch(512, 4, 32, 32, 3, num_sms=132).in_shared


@pytest.mark.parametrize("value_bytes", [2, 4])
def test_every_multiprocessor_has_a_block_at_224_px(value_bytes):
    assert plan_launch(256, 4, 224, 224, 3, num_sms=132, value_bytes=value_bytes).blocks == 132


@pytest.mark.slow
@pytest.mark.process
def test_the_package_does_not_import_numba_cuda(tmp_path):
    code = "import sys, fastmagn, fastmagn.augment.views, fastmagn.training.run; print('numba.cuda' in sys.modules)"
    assert run(["-c", code], tmp_path).stdout == "False\n"


def test_an_image_too_large_is_refused():
    from fastmagn.augment.engines.numba_cuda import fill_views

    images = torch.empty((1, 4096, 2049, 3), dtype=torch.uint8, device="meta")
    with pytest.raises(InputError) as error:
        fill_views(images, params_for(np.broadcast_to(np.uint8(0), images.shape)), images)
    assert str(error.value) == "images_u8: got '4096 x 2049 pixels'; expected at most 8388608 on CUDA."

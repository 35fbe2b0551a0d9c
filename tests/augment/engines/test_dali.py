"""The DALI backend against Pillow: operation by operation, the base transform, whole views; and how it is fed."""

import dataclasses
import sys
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("nvidia.dali", reason="needs NVIDIA DALI: pip install 'fastmagn[dali]'")

from nvidia.dali import fn, pipeline_def, types

from fastmagn import AugMix
from fastmagn.augment.engines import dali as dali_backend
from fastmagn.augment.engines import pil
from fastmagn.augment.operations import OPERATIONS
from fastmagn.augment.params import ViewParams, ViewSpec, identity_base, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from fastmagn_kernels import threads
from fastmagn_kernels.random import draws
from tests.augment.drawn import with_draws
from tests.augment.engines.tolerances_dali import TOLERANCES
from tests.helpers.operations import magnitudes, run_pillow
from tests.helpers.small_runs import config_for
from tests.helpers.steps import start_run, take_steps
from tests.helpers.tiers import slow_but
from tests.helpers.views import CLEAN_ONLY, PAPER, SPEC, as_tensor, assert_equal_on_threads, clean_views, params_for

ONE_CHAIN = ViewSpec(num_augmix_views=1, num_noise_views=0)
ONE_OPERATION = AugmentConfig(mixture_width=1, mixture_depth=1, all_operations=True)
SIZES = slow_but([(32, 32), (20, 33), (1, 1)], (20, 33))
CHUNK = 512  # images a call: one pipeline for all of a size


def run_dali(op: int, op_magnitudes: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Operation `op` on each image with its magnitude, uint8, by the public way: a view that is one chain of one."""
    made = []
    for first in range(0, len(images), CHUNK):
        part, chosen = images[first : first + CHUNK], op_magnitudes[first : first + CHUNK]
        params = identity_base(params_for(part, ONE_CHAIN, ONE_OPERATION))
        params = with_draws(
            params,
            ops=np.full((1, len(part), 1, 1), op),
            magnitudes=chosen.reshape(1, -1, 1, 1),
            mix_weight=np.ones((1, len(part))),
        )
        out = torch.full((2, *part.shape), torch.nan)
        dali_backend.fill_views(torch.from_numpy(part.copy()), params, out.flatten(0, 1))
        view = out[1].numpy() * 255
        np.testing.assert_allclose(view, view.round(), atol=1e-4)
        made.append(view.round().astype(np.uint8))
    return np.concatenate(made)


def is_border_tie(op, magnitude: float) -> bool:
    """Whether a pixel's centre falls on the source's very border, where rounding decides: 1/7 (3 + 1/2) = 1/2."""
    return op.unit == "px per px" and abs(magnitude) == 1 / 7


def drawable(op, height: int, width: int) -> np.ndarray:
    """`magnitudes` without the ties, which no draw hits but by chance."""
    return np.array([value for value in magnitudes(op, height, width) if not is_border_tie(op, value)])


def every_magnitude(op, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(images, magnitudes): each image with each magnitude that `op` can be given."""
    values = drawable(op, *images.shape[1:3])
    return np.repeat(images, len(values), axis=0), np.tile(values, len(images))


def assert_within(name: str, made: np.ndarray, expected: np.ndarray, capsys) -> None:
    difference = np.abs(made.astype(int) - expected)
    largest, differing, beyond_one = difference.max(), (difference > 0).mean(), (difference > 1).mean()
    with capsys.disabled():
        print(f"\n{name:12} largest {largest:3}, differ {differing:.4%}, by more than 1 {beyond_one:.4%} ", end="")
    assert largest <= TOLERANCES[name].max_levels
    assert differing <= TOLERANCES[name].differing


def assert_operation_is_near_pillow(op, images: np.ndarray, values: np.ndarray, capsys) -> None:
    expected = [run_pillow(op.id, value, image[None]) for value, image in zip(values, images, strict=True)]
    assert_within(op.name, run_dali(op.id, values, images), np.concatenate(expected), capsys)


@pytest.mark.parametrize(
    "size", slow_but([(32, 32), (20, 33), (1, 1)], (20, 33)), ids=lambda size: f"{size[0]}x{size[1]}"
)
@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_operation_is_near_pillow(op, size, pictures, capsys):
    assert_operation_is_near_pillow(op, *every_magnitude(op, pictures(*size)), capsys)


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_operation_is_near_pillow_on_large_images(op, pictures, capsys):
    images = pictures(224, 180)[[0, 6, 8]]
    values = drawable(op, 224, 180)
    values = values[:: max(1, len(values) // 8)]
    assert_operation_is_near_pillow(op, np.repeat(images, len(values), axis=0), np.tile(values, 3), capsys)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: op.name)
def test_operation_is_near_pillow_on_cifar(op, cifar_images, capsys):
    """1,000 images, each with one magnitude; all magnitudes in turn."""
    assert_operation_is_near_pillow(op, cifar_images, np.resize(drawable(op, 32, 32), 1000), capsys)


def test_only_pixels_on_the_very_border_are_undecided(pictures):
    """A shear of 1/7 puts the centres of a few pixels on the border: black in one engine, the border in the other."""
    images = pictures(32, 32)
    for op in (op for op in OPERATIONS if op.unit == "px per px"):
        for magnitude in (1 / 7, -1 / 7):
            made = run_dali(op.id, np.full(len(images), magnitude), images)
            expected = run_pillow(op.id, magnitude, images)
            differing = (np.abs(made.astype(int) - expected) > 1).any(-1)
            assert differing.mean() < 0.01
            assert ((made[differing] == 0).all(-1) | (expected[differing] == 0).all(-1)).all()


def test_jitter_equals_pillow(pictures):
    images = np.tile(pictures(20, 33), (20, 1, 1, 1))
    augment = AugmentConfig(horizontal_flip=True, color_jitter=1.0, rotation_deg=0)
    params = params_for(images, CLEAN_ONLY, augment)
    assert len(np.unique(params.base.jitter_order)) == 6
    expected = clean_views(pil.fill_views, images, params)
    np.testing.assert_array_equal(clean_views(dali_backend.fill_views, images, params), expected)


def test_base_rotation_is_near_pillow_at_every_64th_degree(pictures, capsys):
    angles = np.arange(-128, 129)
    images = np.resize(pictures(32, 32), (len(angles), 32, 32, 3))
    params = with_draws(identity_base(params_for(images, CLEAN_ONLY)), angle=angles)
    made, expected = (clean_views(fill, images, params) * 255 for fill in (dali_backend.fill_views, pil.fill_views))
    assert_within("rotate", made.round(), expected.round(), capsys)


def whole_views(backend: str, images: np.ndarray, params: ViewParams) -> torch.Tensor:
    """In levels, [V, B, 3, H, W]."""
    return make_views(as_tensor(images), params, backend).unflatten(0, (-1, len(images))) * 255


def assert_views_are_near_pillow(images: np.ndarray, params: ViewParams, capsys) -> None:
    """At most one level in the clean view; rarely more, where a later operation of a chain stretches it."""
    difference = (whole_views("dali", images, params) - whole_views("pil", images, params)).abs()
    augmix = difference[1:3]
    beyond_one = (augmix > 1.001).float().mean()
    with capsys.disabled():
        print(f"\nclean: largest {difference[0].max():.3f} levels, mean {difference[0].mean():.5f};", end=" ")
        print(f"AugMix: {augmix.max():.1f}, mean {augmix.mean():.5f}, by more than 1 {beyond_one:.4%} ", end="")
    assert difference[0].max() < 1.001
    assert difference[0].mean() < 0.0005
    assert beyond_one < 0.0003
    assert augmix.mean() < 0.003
    torch.testing.assert_close(difference[3], difference[0], rtol=0, atol=1e-3)  # the same noise to rounding


@pytest.mark.parametrize(
    "size", slow_but([(32, 32), (20, 33), (1, 1)], (20, 33)), ids=lambda size: f"{size[0]}x{size[1]}"
)
@pytest.mark.parametrize(
    "augment",
    [PAPER, AugmentConfig(all_operations=True, mixture_width=1, mixture_depth=4), AugmentConfig(mixture_width=8)],
    ids=["paper", "deep", "wide"],
)
def test_views_are_near_pillow(size, augment, pictures, capsys):
    images = np.tile(pictures(*size), (4, 1, 1, 1))
    assert_views_are_near_pillow(images, params_for(images, augment=augment), capsys)


@pytest.mark.slow
@pytest.mark.data
def test_views_are_near_pillow_on_cifar(cifar_images, capsys):
    assert_views_are_near_pillow(cifar_images, params_for(cifar_images), capsys)


def test_views_without_shears_and_rotations_are_pillows(pictures):
    images = np.tile(pictures(20, 33), (4, 1, 1, 1))
    augment = dataclasses.replace(PAPER, rotation_deg=0, all_operations=True)
    params = params_for(images, augment=augment)
    inexact = [op.id for op in OPERATIONS if TOLERANCES[op.name].max_levels]
    params = with_draws(params, ops=np.where(np.isin(params.augmix.ops, inexact), -1, params.augmix.ops))
    made, expected = (whole_views(backend, images, params) / 255 for backend in ("dali", "pil"))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


def test_equalize_on_a_cuda_device_is_pillows(pictures):
    """What equalises there, as an operator on the host: images of one value and of two among them."""

    @pipeline_def
    def graph():
        images = fn.external_source(name="images", dtype=types.UINT8, ndim=3, layout="HWC")
        return fn.dl_tensor_python_function(images, function=dali_backend.equalize_batch, batch_processing=True)

    for size in ((32, 32), (20, 33), (1, 7), (224, 180)):
        images = pictures(*size)
        pipeline = graph(batch_size=len(images), num_threads=1, device_id=None, prefetch_queue_depth=1)
        (made,) = pipeline.run(images=images)
        np.testing.assert_array_equal(np.asarray(made.as_tensor()), run_pillow(draws.EQUALIZE, 0.0, images))


def test_views_do_not_depend_on_batch_or_order(pictures):
    images = pictures(32, 32)
    indices = np.array([7, 0, 1, 2, 3, 49_999, 60_000, 4, 5, 6, 8, 9, 10, 11])

    def views_of(rows: list[int]) -> torch.Tensor:
        params = sample_view_params(5, 2, indices[rows], SPEC, PAPER, (32, 32))
        return whole_views("dali", images[rows], params)

    whole = views_of(list(range(14)))
    order = np.random.default_rng(0).permutation(14).tolist()
    torch.testing.assert_close(views_of(order), whole[:, order], rtol=0, atol=0)
    for part in ([3], [0, 13], [5, 4, 3, 2, 1]):
        torch.testing.assert_close(views_of(part), whole[:, part], rtol=0, atol=0)


@pytest.mark.slow
def test_views_do_not_depend_on_the_number_of_threads(monkeypatch):
    assert_equal_on_threads("dali", monkeypatch)


def test_a_smaller_last_batch_uses_the_same_pipelines(pictures):
    images = pictures(32, 32)
    caches = (dali_backend._base_pipeline, dali_backend._chain_pipeline)
    whole_views("dali", images, params_for(images))
    before = [cache.cache_info().misses for cache in caches]
    for num_images in (14, 9, 14, 11):
        whole_views("dali", images[:num_images], params_for(images[:num_images]))
    assert [cache.cache_info().misses for cache in caches] == before


def test_pipelines_that_are_kept_are_few_and_have_as_many_threads_as_kernels(pictures, monkeypatch):
    built = []
    graph = dali_backend._base_graph

    def build(*arguments, **settings):
        built.append(graph(*arguments, **settings))
        return built[-1]

    monkeypatch.setattr(dali_backend, "_base_graph", build)
    for height in range(40, 46):
        whole_views("dali", pictures(height, 8), params_for(pictures(height, 8), CLEAN_ONLY))
    assert len(built) == 6
    assert dali_backend._base_pipeline.cache_info().currsize == 4
    assert {pipeline.num_threads for pipeline in built} == {threads.num_threads()}


class DaliViews(torch.utils.data.Dataset):
    """For each picture its view by its key."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.augmix = images, AugMix(seed=5, backend="dali")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.augmix(self.images[index], indices=index, epoch=3)


@pytest.mark.process
def test_a_worker_that_is_forked_after_use_makes_the_views_of_its_parent(pictures):
    """DALI's threads are not there, and so a pipeline of the parent would be waited for without end."""
    data = DaliViews(as_tensor(pictures(20, 33)[:3]))
    expected = torch.stack([data[index] for index in range(len(data))])  # by pipelines of the worker's size
    for _ in range(2):
        made = DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="fork", timeout=60)
        assert torch.equal(torch.cat(list(made)), expected)
    assert torch.equal(torch.stack([data[index] for index in range(len(data))]), expected)


def test_threads_take_turns_with_a_pipeline(pictures):
    images = as_tensor(pictures(20, 33))
    params = [params_for(pictures(20, 33), CLEAN_ONLY, seed=seed) for seed in range(2)]
    expected, right = [make_views(images, of_one, "dali") for of_one in params], [0, 0]

    def work(number: int) -> None:
        for _ in range(50):
            right[number] += torch.equal(make_views(images, params[number], "dali"), expected[number])

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert right == [50, 50]


def test_without_dali_the_extra_is_named(pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "fastmagn.augment.engines.dali")
    images = pictures(32, 32)
    with pytest.raises(InputError) as error:
        make_views(as_tensor(images), params_for(images), "dali")
    message = "augment.backend: got dali, which needs NVIDIA DALI; install 'fastmagn[dali]', or use auto."
    assert str(error.value) == message


def test_three_training_steps(tmp_path):
    arguments = ["--train.batch_size", "32", "--device", "cpu", "--train.amp", "float32", "--augment.backend", "dali"]
    steps = take_steps(start_run(config_for(arguments, tmp_path / "run")), 3)
    assert len(steps) == 3
    assert all(np.isfinite(part) for parts in steps for part in parts.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_views_of_cuda_images_are_near_pillow(dtype, pictures):
    images = np.tile(pictures(20, 33), (4, 1, 1, 1))
    params = params_for(images, augment=dataclasses.replace(PAPER, all_operations=True))
    expected = whole_views("pil", images, params)
    made = make_views(as_tensor(images).cuda(), params, "dali", dtype)
    assert made.is_cuda
    assert made.dtype == dtype
    difference = (made.float().cpu().view_as(expected) * 255 - expected).abs()
    rounding = 1.0 if dtype == torch.bfloat16 else 0.001  # bfloat16 has 8 bits: half a level, and more for noise
    assert difference[0].max() < 1 + rounding
    assert (difference[1:3] > 1 + rounding).float().mean() < 0.003

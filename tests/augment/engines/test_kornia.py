"""The Kornia engine against Pillow, within the table of tolerances; its noise; determinism; that nothing waits."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("kornia", reason="needs Kornia: pip install 'fastmagn[kornia]'")

from fastmagn.augment.engines import kornia as kornia_backend
from fastmagn.augment.engines import pil
from fastmagn.augment.engines.philox_torch import philox4x32, standard_normal
from fastmagn.augment.operations import OPERATIONS
from fastmagn.augment.params import ViewParams, ViewSpec, identity_base, sample_view_params
from fastmagn.augment.views import VIEW_DTYPES, FillViews, choose_engine, make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from fastmagn_kernels.random import rng
from tests.augment.drawn import with_draws
from tests.augment.engines.tolerances import check_table, differences, drawable_magnitudes, measured
from tests.helpers.philox import philox_reference

SPEC = ViewSpec(num_augmix_views=2, num_noise_views=2)
CLEAN_ONLY = ViewSpec(num_augmix_views=0, num_noise_views=0)
PAPER = AugmentConfig(aug_severity=10, random_aug_severity=True, horizontal_flip=True, color_jitter=0.25)
DEEP = AugmentConfig(
    aug_severity=10, all_operations=True, horizontal_flip=True, color_jitter=1, mixture_width=4, mixture_depth=8
)
SIZES = [(32, 32), (20, 33), (1, 1), (2, 5), (3, 3)]
WORDS = st.integers(0, 2**32 - 1)


def fill(
    images: np.ndarray,
    params: ViewParams,
    fill_views: FillViews = kornia_backend.fill_views,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """All views, [V, B, H, W, 3]."""
    out = torch.full((params.view_spec.num_views * len(images), *images.shape[1:]), torch.nan, dtype=dtype)
    fill_views(torch.from_numpy(images.copy()), params, out)
    return out.view(-1, *images.shape)


def params_for(images: np.ndarray, augment: AugmentConfig = PAPER, spec: ViewSpec = SPEC) -> ViewParams:
    return sample_view_params(3, 1, np.arange(len(images)), spec, augment, images.shape[1:3])


def rotation_differences(images: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """|engine - Pillow| of clean views that are only rotated, levels."""
    params = with_draws(identity_base(params_for(images, spec=CLEAN_ONLY)), angle=angles)
    made, expected = (fill(images, params, engine) for engine in (kornia_backend.fill_views, pil.fill_views))
    return ((made - expected).abs() * 255).round().int().numpy()


def every_pair(images: np.ndarray, values: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Every image with every value: images [n, H, W, 3], values [n]."""
    return np.tile(images, (len(values), 1, 1, 1)), np.repeat(values, len(images))


def test_every_operation_at_every_magnitude_is_within_its_tolerance(pictures):
    measurements = {
        op.name: measured(
            [
                differences("kornia", op, *every_pair(pictures(*size), drawable_magnitudes(op, *size)))
                for size in SIZES
            ]
        )
        for op in OPERATIONS
    }  # fmt: skip
    angles = list(range(-128, 129))
    rotated = [rotation_differences(*every_pair(pictures(*size), angles)) for size in SIZES]
    check_table("kornia", "pictures", measurements | {"base_rotation": measured(rotated)})


def test_large_images_are_within_the_tolerances(pictures):
    measurements = {}
    for op in OPERATIONS:
        values = drawable_magnitudes(op, 224, 180)
        pairs = every_pair(pictures(224, 180)[[0, 6, 8]], values[:: max(1, len(values) // 8)])
        measurements[op.name] = measured([differences("kornia", op, *pairs)])
    check_table("kornia", "large", measurements)


@pytest.mark.slow
@pytest.mark.data
def test_cifar_is_within_the_tolerances(cifar_images):
    """1,000 images, each with one magnitude; all magnitudes in turn."""
    measurements = {}
    for op in OPERATIONS:
        values = np.resize(drawable_magnitudes(op, 32, 32), len(cifar_images))
        measurements[op.name] = measured([differences("kornia", op, cifar_images, values)])
    angles = np.resize(np.arange(-128, 129), len(cifar_images))
    measurements["base_rotation"] = measured([rotation_differences(cifar_images, angles)])
    check_table("kornia", "cifar10", measurements)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_crop_flip_and_jitter_equal_pillow(size, pictures):
    images = np.tile(pictures(*size), (12, 1, 1, 1))
    params = params_for(images, AugmentConfig(horizontal_flip=True, color_jitter=1, rotation_deg=0), CLEAN_ONLY)
    np.testing.assert_array_equal(fill(images, params), fill(images, params, pil.fill_views))


def test_contrast_of_a_large_image_rounds_its_mean_as_pillow_does():
    """A sum of grey levels one below that of a mean of 200.5, which float32 does not tell from it."""
    num_pixels = 512 * 512
    grey = np.full(num_pixels, 200, np.uint8)
    grey[: num_pixels // 2 - 1] = 201
    image = grey.reshape(1, 512, 512, 1).repeat(3, 3)
    contrast = next(op.id for op in OPERATIONS if op.name == "contrast")
    augment = AugmentConfig(mixture_width=1, mixture_depth=1, all_operations=True)
    params = identity_base(params_for(image, augment, ViewSpec(num_augmix_views=1, num_noise_views=0)))
    params = with_draws(
        params,
        ops=np.full((1, 1, 1, 1), contrast),
        magnitudes=np.full((1, 1, 1, 1), 0.25),
        mix_weight=np.ones((1, 1)),
    )
    expected = np.asarray(ImageEnhance.Contrast(Image.fromarray(image[0])).enhance(0.25))
    np.testing.assert_array_equal((fill(image, params)[1, 0] * 255).round(), expected)


@pytest.mark.data
def test_whole_views_of_cifar_are_near_pillows(cifar_images):
    """A difference of one level stays one, but where a later operation has a step, as posterize does."""
    params = params_for(cifar_images)
    made, expected = (fill(cifar_images, params, engine) for engine in (kornia_backend.fill_views, pil.fill_views))
    levels = (made - expected).abs().flatten(2).double() * 255
    for name, rows, mean, largest in (
        ("clean", slice(0, 1), 4.5e-4, 1.001),
        ("AugMix", slice(1, 3), 2.7e-3, 66),
        ("noise", slice(3, 5), 4.5e-4, 1.001),
    ):
        print(f"{name} views: mean difference {levels[rows].mean():.2g} levels, largest {levels[rows].max():.3g}")
        assert levels[rows].mean() < mean
        assert levels[rows].max() < largest


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_deep_chains_of_exact_operations_equal_pillow(size, pictures):
    """Groups, steps, weights and slabs, with no tolerance: rotations and shears become translations."""
    images = np.tile(pictures(*size), (4, 1, 1, 1))
    params = params_for(images, DEEP, ViewSpec(num_augmix_views=3, num_noise_views=0))
    params = identity_base(params)
    ops, magnitudes = params.augmix.ops.copy(), params.augmix.magnitudes.copy()
    inexact = np.isin(ops, [op.id for op in OPERATIONS if op.name in ("rotate", "shear_x", "shear_y")])
    ops[inexact] = next(op.id for op in OPERATIONS if op.name == "translate_y")
    magnitudes[inexact] = 1
    ops[:, ::3, 0, 5:] = -1  # chains of unequal depth
    params = with_draws(params, ops=ops, magnitudes=magnitudes)
    torch.testing.assert_close(fill(images, params), fill(images, params, pil.fill_views), rtol=0, atol=1e-6)


def test_views_do_not_depend_on_batch_order_or_slabs(pictures, monkeypatch):
    images = pictures(20, 33)
    indices = np.array([7, 0, 1, 2, 3, 49_999, 60_000, 4, 5, 6, 8, 9, 10, 2**32 - 1])

    def run(rows: list[int]) -> Tensor:
        params = sample_view_params(2**63 + 5, 2, indices[rows], SPEC, DEEP, (20, 33))
        return fill(images[rows], params)

    whole = run(list(range(14)))
    order = np.random.default_rng(0).permutation(14).tolist()
    torch.testing.assert_close(run(order), whole[:, order], rtol=0, atol=1e-6)
    for row in range(14):
        torch.testing.assert_close(run([row]), whole[:, [row]], rtol=0, atol=1e-6)
    for num_samples in (0.5, 5):
        num_values = int(num_samples * 2 * 4 * images[0].size)  # J and W
        monkeypatch.setattr(kornia_backend, "_SLAB_VALUES", num_values)
        torch.testing.assert_close(run(list(range(14))), whole, rtol=0, atol=1e-6)


def test_images_are_left_as_they_are(pictures):
    images = torch.from_numpy(pictures(32, 32).copy())
    augment = AugmentConfig(mixture_width=1, all_operations=True)
    params = params_for(pictures(32, 32), augment, ViewSpec(num_augmix_views=1, num_noise_views=0))
    for given_params in (params, identity_base(params)):
        make_views(images.permute(0, 3, 1, 2), given_params, "kornia")
        np.testing.assert_array_equal(images, pictures(32, 32))


@pytest.mark.parametrize("dtype", VIEW_DTYPES, ids=str)
def test_views_are_rounded_once(dtype, pictures):
    images = pictures(20, 33)
    made = fill(images, params_for(images), dtype=dtype)
    torch.testing.assert_close(made, fill(images, params_for(images)).to(dtype), rtol=0, atol=0)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=4, max_size=4), st.integers(0, 2**64 - 1))
def test_philox_equals_plain_integers(counter, seed):
    slot, stream_view, index, epoch = counter
    made = philox4x32(torch.tensor([slot]), torch.tensor([stream_view]), torch.tensor([index]), epoch, seed)
    assert [word.item() for word in made] == philox_reference(counter, [seed % 2**32, seed >> 32])


@pytest.mark.parametrize("num_elements", [1, 2, 3, 4, 3071, 3072])
def test_normals_are_the_kernels(num_elements):
    indices = np.array([0, 1, 49_999, 2**32 - 1])
    made = standard_normal(rng.STREAM_NOISE, 3, torch.from_numpy(indices), 2**32 - 1, 2**64 - 2, num_elements)
    expected = np.empty((3, 4, num_elements), np.float32)
    for view, rows in enumerate(expected):
        rng.standard_normal_batch(rows, rng.STREAM_NOISE, view, indices, 2**32 - 1, *rng.key_words(2**64 - 2))
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-6)


def test_nothing_on_the_device_is_waited_for(pictures):
    """Tensors without values: whatever read one, or mixed host and device, would raise."""
    params = params_for(pictures(32, 32), DEEP)
    with FakeTensorMode():
        images = torch.empty((14, 32, 32, 3), dtype=torch.uint8, device="cuda")
        out = torch.empty((5 * 14, 32, 32, 3), dtype=torch.bfloat16, device="cuda")
        kornia_backend.fill_views(images, params, out)


def test_images_on_cuda_are_augmented_there():
    engine = choose_engine("kornia", torch.device("cuda"))
    assert (engine.device, engine.fill_views) == ("cuda", kornia_backend.fill_views)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_makes_the_same_views_without_waiting(pictures):
    images = pictures(32, 32)
    params = params_for(images, DEEP, ViewSpec(num_augmix_views=0, num_noise_views=2))
    on_device, out = torch.from_numpy(images.copy()).cuda(), torch.empty((3 * 14, 32, 32, 3), device="cuda")
    kornia_backend.fill_views(on_device, params, out)
    torch.cuda.set_sync_debug_mode("error")
    try:
        kornia_backend.fill_views(on_device, params, out)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    levels = (out.view(3, *images.shape).cpu() - fill(images, params)).abs() * 255
    assert levels.max() < 1.001
    assert levels.mean() < 1e-3


def test_without_kornia_the_extra_is_named(pictures, monkeypatch):
    def find_spec(name: str, *_: object) -> None:
        if name == "kornia":
            raise ModuleNotFoundError("No module named 'kornia'", name=name)

    monkeypatch.delitem(sys.modules, "kornia.enhance")
    monkeypatch.delitem(sys.modules, "kornia")
    monkeypatch.setattr(sys, "meta_path", [SimpleNamespace(find_spec=find_spec), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "fastmagn.augment.engines.kornia")
    images = pictures(32, 32)
    with pytest.raises(InputError) as error:
        make_views(torch.from_numpy(images).permute(0, 3, 1, 2), params_for(images), "kornia")
    message = "augment.backend: got kornia, which needs Kornia; install 'fastmagn[kornia]', or use auto."
    assert str(error.value) == message

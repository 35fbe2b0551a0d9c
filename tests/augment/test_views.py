"""Whole views: the compiled engine against Pillow, layout, determinism, properties, and what is refused."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastmagn.augment.engines import numba_cpu as numba_backend
from fastmagn.augment.engines import pil
from fastmagn.augment.params import JITTER_ORDERS, ViewParams, ViewSpec, identity_base, sample_view_params
from fastmagn.augment.views import BACKENDS, make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from tests.augment.drawn import with_draws
from tests.helpers.views import (
    CLEAN_ONLY,
    PAPER,
    SPEC,
    as_tensor,
    assert_equal_on_threads,
    clean_views,
    params_for,
)

SIZES = [(32, 32), (20, 33), (33, 20), (1, 1), (2, 5)]


def base_params(images: np.ndarray, **arrays) -> ViewParams:
    """The identity, but for the given arrays [B]."""
    return with_draws(identity_base(params_for(images, CLEAN_ONLY)), **arrays)


def assert_base_equals_pillow(images: np.ndarray, params: ViewParams) -> None:
    expected = clean_views(pil.fill_views, images, params)
    np.testing.assert_array_equal(clean_views(numba_backend.fill_views, images, params), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("padding", [0, 1, 4, 64])
def test_crop_and_flip_are_windows_of_the_padded_image(backend, padding, pictures):
    image = pictures(20, 33)[8]
    offsets = [0, padding, 2 * padding, padding // 2]
    combinations = list(itertools.product(offsets, offsets, (False, True)))
    x, y, flip = (list(column) for column in zip(*combinations, strict=True))
    images = np.repeat(image[None], len(combinations), 0)
    augment = AugmentConfig(crop_padding_px=padding, rotation_deg=0)
    params = with_draws(params_for(images, CLEAN_ONLY, augment), crop_x_px=x, crop_y_px=y, flip=flip)
    made = make_views(as_tensor(images), params, backend).permute(0, 2, 3, 1).numpy()
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    for (left, top, mirrored), view in zip(combinations, made, strict=True):
        window = padded[top : top + 20, left : left + 33]
        expected = window[:, ::-1] if mirrored else window
        np.testing.assert_array_equal(view, expected / np.float32(255))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_jitter_equals_pillow(size, pictures):
    factors = [0, 0.25, 0.75, 0.9, 1, 1.1, 1.25, 2]
    combinations = list(itertools.product(range(6), factors, factors[1::2], factors[::3]))
    order, brightness, contrast, saturation = (list(column) for column in zip(*combinations, strict=True))
    images = np.resize(pictures(*size), (len(combinations), *size, 3))
    params = base_params(
        images, jitter_order=order, brightness=brightness, contrast=contrast, saturation=saturation
    )  # fmt: skip
    assert_base_equals_pillow(images, params)


def test_jitter_orders_are_the_six():
    assert sorted(JITTER_ORDERS) == sorted(itertools.permutations(("brightness", "contrast", "saturation")))


@pytest.mark.parametrize("size", [*SIZES, (224, 180)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_rotation_equals_pillow_at_every_64th_degree(size, pictures):
    small = max(size) < 100
    angles = list(range(-128, 129)) if small else [-1920, -1919, -128, -65, -1, 1, 33, 127, 128, 1919, 1920]
    for image in pictures(*size)[:: 1 if small else 8]:
        images = np.repeat(image[None], len(angles), 0)
        assert_base_equals_pillow(images, base_params(images, angle=angles))


def assert_backends_agree(images: np.ndarray, params: ViewParams) -> None:
    made = make_views(as_tensor(images), params, "numba")
    expected = make_views(as_tensor(images), params, "pil")
    clean = slice(0, len(images))
    torch.testing.assert_close(made[clean], expected[clean], rtol=0, atol=0)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    "augment",
    [
        PAPER,
        AugmentConfig(color_jitter=0.25),
        AugmentConfig(all_operations=True, aug_severity=10, mixture_width=1, mixture_depth=8),
        AugmentConfig(mixture_width=8, mixture_depth=1, color_jitter=1, rotation_deg=30, crop_padding_px=10),
    ],
    ids=["paper", "default", "deep", "wide"],
)
def test_numba_equals_pillow(size, augment, pictures):
    images = np.tile(pictures(*size), (6, 1, 1, 1))
    assert_backends_agree(images, params_for(images, augment=augment))


def test_numba_equals_pillow_on_large_images(pictures):
    images = pictures(224, 180)[[0, 8, 11]]
    assert_backends_agree(images, params_for(images))


def test_numba_equals_pillow_as_augmix_runs_on_imagenet(pictures):
    images = pictures(224, 224)[[0, 8, 11]]
    augment = AugmentConfig(aug_severity=1, crop_padding_px=0, horizontal_flip=True, rotation_deg=0)
    assert_backends_agree(images, params_for(images, augment=augment))


@pytest.mark.data
def test_numba_equals_pillow_on_cifar(cifar_images):
    assert_backends_agree(cifar_images, params_for(cifar_images))


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_have_the_documented_form(backend, pictures):
    images = pictures(20, 33)
    views = make_views(as_tensor(images), params_for(images), backend)
    assert views.shape == (4 * 14, 3, 20, 33)
    assert views.dtype == torch.float32
    assert views.is_contiguous(memory_format=torch.channels_last)
    clean, *augmix, noisy = views.chunk(4)
    assert all(part.shape == (14, 3, 20, 33) for part in (clean, *augmix, noisy))
    assert clean.min() >= 0
    assert clean.max() <= 1
    assert noisy.min() < 0  # noise is not clipped


def test_noise_is_sigma_times_a_standard_normal(pictures):
    images = pictures(224, 180)
    params = params_for(images, ViewSpec(num_augmix_views=0, num_noise_views=2))
    clean, *noisy = make_views(as_tensor(images), params).chunk(3)
    z = [
        ((view - clean) / torch.from_numpy(sigma)[:, None, None, None]).numpy()
        for view, sigma in zip(noisy, params.sigma, strict=True)
    ]
    for noise in z:
        np.testing.assert_allclose(noise.mean((1, 2, 3)), 0, atol=0.02)
        np.testing.assert_allclose(noise.std((1, 2, 3)), 1, atol=0.02)
    assert abs(np.corrcoef(z[0].ravel(), z[1].ravel())[0, 1]) < 0.01


def test_contiguous_and_channels_last_images_give_the_same_views(pictures):
    images = as_tensor(pictures(20, 33))
    params = params_for(pictures(20, 33))
    expected = make_views(images, params)
    torch.testing.assert_close(make_views(images.contiguous(), params), expected, rtol=0, atol=0)


def test_views_are_the_same_whoever_draws(pictures):
    """The numba engine draws AugMix's parameters itself unless they have been asked for."""
    images = pictures(32, 32)
    undrawn, drawn = params_for(images), params_for(images)
    assert (drawn.augmix.ops >= -1).all()
    made = [make_views(as_tensor(images), params, "numba") for params in (undrawn, drawn)]
    assert "augmix" not in vars(undrawn)
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=0)


def test_views_do_not_depend_on_batch_or_order(pictures):
    images = pictures(32, 32)
    indices = np.array([7, 0, 1, 2, 3, 49_999, 60_000, 4, 5, 6, 8, 9, 10, 11])

    def views_of(rows: list[int]) -> torch.Tensor:
        params = sample_view_params(5, 2, indices[rows], SPEC, PAPER, (32, 32))
        return make_views(as_tensor(images[rows]), params).reshape(4, len(rows), 3, 32, 32)

    whole = views_of(list(range(14)))
    order = np.random.default_rng(0).permutation(14).tolist()
    torch.testing.assert_close(views_of(order), whole[:, order], rtol=0, atol=0)
    for row in range(14):
        torch.testing.assert_close(views_of([row]), whole[:, [row]], rtol=0, atol=0)


def test_views_do_not_depend_on_the_number_of_threads(monkeypatch):
    assert_equal_on_threads("numba", monkeypatch)


def test_methods_with_and_without_noise_get_the_same_augmix_views(pictures):
    images = pictures(32, 32)
    both = make_views(as_tensor(images), params_for(images))
    augmix = make_views(as_tensor(images), params_for(images, ViewSpec(num_augmix_views=2, num_noise_views=0)))
    torch.testing.assert_close(both[: len(augmix)], augmix, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_device_does_not_matter(backend, pictures):
    images = as_tensor(pictures(20, 33))
    expected = make_views(images, params_for(pictures(20, 33)), backend)
    with torch.device("meta"):  # stands for cuda
        made = make_views(images, params_for(pictures(20, 33)), backend)
    assert torch.equal(made, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_dtype_does_not_matter(backend, pictures, default_float64):
    images = as_tensor(pictures(20, 33))
    with default_float64():
        made = make_views(images, params_for(pictures(20, 33)), backend)
    assert torch.equal(made, make_views(images, params_for(pictures(20, 33)), backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_identity_parameters_change_nothing(backend, pictures):
    images = pictures(20, 33)
    params = identity_base(params_for(images))
    nothing = np.full_like(params.augmix.ops, -1)
    params = with_draws(params, ops=nothing, sigma=np.zeros_like(params.sigma))
    clean, *others = make_views(as_tensor(images), params, backend).reshape(4, 14, 3, 20, 33)
    torch.testing.assert_close(clean, as_tensor(images) / np.float32(255), rtol=0, atol=0)
    for view in others:
        torch.testing.assert_close(view, clean, rtol=0, atol=1e-6)


def test_a_mix_weight_of_zero_is_the_clean_view(pictures):
    images = pictures(32, 32)
    params = params_for(images)
    params = with_draws(params, mix_weight=np.zeros((2, len(images))))
    clean, first, second, _ = make_views(as_tensor(images), params).reshape(4, 14, 3, 32, 32)
    torch.testing.assert_close(first, clean, rtol=0, atol=0)
    torch.testing.assert_close(second, clean, rtol=0, atol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 13), st.integers(1, 4), st.booleans())
def test_a_mix_lies_between_its_parts(pictures, index, picture, width, all_operations):
    augment = AugmentConfig(aug_severity=10, color_jitter=0.25, mixture_width=width, all_operations=all_operations)
    spec = ViewSpec(num_augmix_views=1, num_noise_views=0)
    images = pictures(20, 33)[[picture]]
    params = sample_view_params(0, 0, [index], spec, augment, (20, 33))
    clean, mixed = make_views(as_tensor(images), params).permute(0, 2, 3, 1).numpy()
    clean_image = pil.base_transform(Image.fromarray(images[0]), params, 0)
    parts = [clean]
    for ops, magnitudes in zip(params.augmix.ops[0, 0], params.augmix.magnitudes[0, 0], strict=True):
        chain = clean_image
        for op, magnitude in zip(ops, magnitudes, strict=True):
            chain = chain if op < 0 else pil.apply_operation(chain, op, magnitude)
        parts.append(np.asarray(chain, np.float32) / 255)
    assert (mixed >= np.min(parts, 0) - 1e-6).all()
    assert (mixed <= np.max(parts, 0) + 1e-6).all()
    weights = params.augmix.mix_weight[0, 0] * params.augmix.chain_weights[0, 0].astype(np.float64)
    expected = sum(w * part.astype(np.float64) for w, part in zip([1 - weights.sum(), *weights], parts, strict=True))
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8), "images_u8.dtype: got torch.float32; expected torch.uint8 (pixels 0..255)."),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "images_u8: got '3 dimensions'; expected 4: [B, 3, H, W]."),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
            "images_u8: got 1 channels; expected 3 (RGB), as [B, 3, H, W].",
        ),
        (
            torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
            "images_u8: got 8 channels; expected 3 (RGB), as [B, 3, H, W]. "
            "These look like [B, H, W, 3]: permute(0, 3, 1, 2).",
        ),
        (
            torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
            "images_u8: got [0, 3, 8, 8]; expected at least one image of at least one pixel.",
        ),
        (torch.zeros(5, 3, 8, 8, dtype=torch.uint8), "images_u8: got '5 images'; expected 2, as params has indices."),
        (
            torch.zeros(2, 3, 8, 9, dtype=torch.uint8),
            "images_u8: got 'height and width (8, 9)'; expected (8, 8), as params has.",
        ),
    ],
)
def test_images_of_another_form_are_refused(images, message):
    params = sample_view_params(0, 0, np.arange(2), SPEC, PAPER, (8, 8))
    with pytest.raises(InputError) as error:
        make_views(images, params)
    assert str(error.value) == message


def test_unknown_backend_lists_those_there_are(pictures):
    images = pictures(32, 32)
    with pytest.raises(
        InputError, match=r"^augment\.backend: got 'numbe'; expected one of .*numba.*pil.* Did you mean"
    ):
        make_views(as_tensor(images), params_for(images), "numbe")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_views_of_cuda_images_are_on_their_device(pictures):
    images = pictures(32, 32)
    expected = make_views(as_tensor(images), params_for(images))
    made = make_views(as_tensor(images).cuda(), params_for(images))
    assert made.is_cuda
    torch.testing.assert_close(made.cpu(), expected, rtol=0, atol=0)

"""Every operation of the policies, compiled, against torchvision on Pillow's images, to the bit."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from fastmagn.augment.engines.pil_operations import apply_operation
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import (
    FACTORS,
    OPERATIONS,
    AutoAugmentPolicy,
    Choice,
    RandAugmentPolicy,
    TrivialAugmentPolicy,
)
from fastmagn.augment.policies.images import apply_policy
from fastmagn.augment.policies.own import OwnPolicy
from fastmagn.augment.policies.recipe import draw_rows
from fastmagn.augment.policies.table import Policy, concrete, list_rows, make_table
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from fastmagn_kernels.random import policies

SIZES = [(32, 32), (33, 20), (1, 1), (2, 5), (64, 64)]
BLACK, COLOUR = (0, 0, 0), (7, 130, 255)
VALUES = {
    "shear_x": [0.99 * k / 30 for k in range(31)],
    "shear_y": [0.99 * k / 30 for k in range(31)],
    "translate_x": [32 * k / 30 for k in range(31)],
    "translate_y": [32 * k / 30 for k in range(31)],
    "rotate": [*(4.5 * k for k in range(31)), 0.1, 30, 60, 180, 270, 359.9, 360],
    "posterize": [*range(1, 9)],
    "solarize": [*(8.5 * k for k in range(31)), 1, 128, 256],
    **{name: [0, 0.01, 0.34, 0.5, 1, 1.3, 1.5, 1.99, 3] for name in FACTORS},
}
SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def values_of(name: str) -> list[float]:
    values = VALUES.get(name, [0.0])
    return [sign * value for value in values for sign in ((1, -1) if name in SIGNED else (1,))]


def compiled(images: np.ndarray, choice: Choice, bilinear: bool, fill: tuple[int, int, int]) -> np.ndarray:
    """What the compiled engine makes of images uint8 [B, H, W, 3] by one operation."""
    policy = Policy(OwnPolicy((((choice,),),)), bilinear, fill)
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    params = sample_view_params(0, 0, np.arange(len(images)), spec, AugmentConfig(), images.shape[1:3])
    out = apply_policy(torch.from_numpy(images.copy()).permute(0, 3, 1, 2), params, policy, "numba")
    return out.permute(0, 2, 3, 1).numpy()


def assert_equal(name: str, images: np.ndarray, values: list[float]) -> None:
    moves = OPERATIONS[name] in ("px per px", "px", "degrees")
    for value, bilinear, fill in itertools.product(values, (False, True), (BLACK, COLOUR)):
        if not moves and (bilinear or fill != BLACK):
            continue
        expected = [
            np.asarray(apply_operation(Image.fromarray(image), name, value, bilinear=bilinear, fill=fill))
            for image in images
        ]
        made = compiled(images, Choice(name, (value,)), bilinear, fill)
        np.testing.assert_array_equal(made, np.stack(expected), err_msg=f"{value}, {bilinear}, {fill}")


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_torchvision(name, size, pictures):
    assert_equal(name, pictures(*size)[[0, 1, 4, 8]], values_of(name))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_torchvision_on_large_images(name, pictures):
    assert_equal(name, pictures(224, 180)[[8]], values_of(name)[3::14] or [0.0])


@pytest.mark.data
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_equals_torchvision_on_cifar(name, cifar_images):
    assert_equal(name, cifar_images[:20], values_of(name)[2::9] or [0.0])


@pytest.mark.parametrize("size", [(1, 700), (700, 3), (3, 513)], ids=str)
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "rotate"])
def test_long_images_equal_torchvision(name, size):
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    assert_equal(name, images, values_of(name)[3::12])


@pytest.mark.parametrize("size", [(16, 16), (15, 40), (40, 15), (23, 70)], ids=str)
@pytest.mark.parametrize("name", ["shear_x", "shear_y", "rotate"])
def test_steep_transforms_equal_torchvision(name, size, pictures):
    values = [45, -45, 90, 135.5] if name == "rotate" else [1.1, -1.14, 1.15, -2, 4]
    assert_equal(name, pictures(*size)[[4, 8]], values)


class Recorded:
    """torchvision's own policies, with their chosen operations recorded instead of applied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, float]] = []
        base = v2.AutoAugment.__mro__[1]

        def record(_, image, transform_id, magnitude, interpolation, fill):
            self.calls.append((transform_id, round(magnitude, 5)))
            return image

        monkeypatch.setattr(base, "_apply_image_or_video_transform", record)


NAMES = dict(
    zip(
        OPERATIONS,
        [
            "Identity",
            "ShearX",
            "ShearY",
            "TranslateX",
            "TranslateY",
            "Rotate",
            "Brightness",
            "Color",
            "Contrast",
            "Sharpness",
            "Posterize",
            "Solarize",
            "AutoContrast",
            "Equalize",
            "Invert",
        ],
        strict=True,
    )
)
POLICIES = {
    "trivialaugment": (TrivialAugmentPolicy(), v2.TrivialAugmentWide()),
    "trivialaugment of 5 bins": (TrivialAugmentPolicy(5), v2.TrivialAugmentWide(5)),
    "randaugment": (RandAugmentPolicy(2, 9), v2.RandAugment(2, 9)),
    "autoaugment cifar10": (AutoAugmentPolicy("cifar10"), v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)),
    "autoaugment imagenet": (AutoAugmentPolicy("imagenet"), v2.AutoAugment()),
    "autoaugment svhn": (AutoAugmentPolicy("svhn"), v2.AutoAugment(v2.AutoAugmentPolicy.SVHN)),
}


def in_torchvisions_words(operation: str, value: float) -> tuple[str, float]:
    magnitude = value - 1.0 if operation in FACTORS else value / 255.0 if operation == "solarize" else value
    return NAMES[operation], round(magnitude, 5)


@pytest.mark.parametrize("name", POLICIES)
def test_operations_are_drawn_as_often_as_by_torchvision(name, monkeypatch):
    """Chi-square of two samples: chains of operations with strengths and signs, by torchvision and by the kernel."""
    definition, reference = POLICIES[name]
    height, width, count = 32, 45, 4000
    recorded, chains = Recorded(monkeypatch), []
    torch.manual_seed(0)
    image = Image.new("RGB", (width, height))
    for _ in range(count):
        recorded.calls.clear()
        reference(image)
        chains.append(tuple(recorded.calls))
    choices = list_rows(definition, height, width).choices
    rows = draw_rows(make_table(Policy(definition), height, width), np.arange(count), (3, 5, 0), (height, width))
    ours = [
        tuple(in_torchvisions_words(*choices[row][:2]) for row in chain if row != policies.NO_ROW) for chain in rows
    ]
    firsts: list[dict] = [{}, {}]
    for counts, drawn in zip(firsts, (chains, ours), strict=True):
        for chain in drawn:
            key = chain if "autoaugment" in name else chain[0]
            counts[key] = counts.get(key, 0) + 1
    both = sorted(set(firsts[0]) | set(firsts[1]))
    pairs = np.array([[counts.get(key, 0) for key in both] for counts in firsts], float)
    often = pairs.sum(axis=0) >= 8
    pooled = np.concatenate([pairs[:, often], pairs[:, ~often].sum(axis=1, keepdims=True)], axis=1)
    pooled = pooled[:, pooled.sum(axis=0) > 0]
    statistic = ((pooled[0] - pooled[1]) ** 2 / pooled.sum(axis=0)).sum()
    freedom = pooled.shape[1] - 1
    assert abs(statistic - freedom) < 4.5 * math.sqrt(2 * freedom)
    if "autoaugment" not in name:  # what torchvision can draw is what we can, and no more
        assert {in_torchvisions_words(*choice[:2]) for choice in choices} >= set(firsts[0])
        assert freedom > 10


def test_wide_strengths_are_torchvisions():
    """Every strength of TrivialAugment's space, from torchvision's own table."""
    choices = list_rows(TrivialAugmentPolicy(), 32, 32).choices
    expected = set()
    for name, (strengths, signed) in v2.TrivialAugmentWide._AUGMENTATION_SPACE.items():
        magnitudes = strengths(31, 32, 32)
        for magnitude in [0.0] if magnitudes is None else [float(m) for m in magnitudes]:
            expected |= {(name, round(sign * magnitude, 5) + 0.0) for sign in ((1, -1) if signed else (1,))}
    assert {in_torchvisions_words(*choice[:2]) for choice in choices} == expected
    counts = [sum(choice[0] == name for choice in choices) for name in OPERATIONS if name != "invert"]
    assert len(set(counts)) == 1


@pytest.mark.parametrize("name", POLICIES)
def test_the_default_dtype_does_not_matter(name, default_float64):
    definition = POLICIES[name][0]
    with default_float64():
        made = definition.sub_policies(32, 45)
    assert made == definition.sub_policies(32, 45)


def test_one_step_after_another(pictures):
    """Two operations in a row, with a probability of 0 between them."""
    images = pictures(20, 33)
    steps = (
        (Choice("rotate", (30.0,)),),
        (Choice("invert", probability=0.0),),
        (Choice("equalize"),),
    )
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    params = sample_view_params(0, 0, np.arange(14), spec, AugmentConfig(), (20, 33))
    made = apply_policy(
        torch.from_numpy(images.copy()).permute(0, 3, 1, 2), params, Policy(OwnPolicy((steps,))), "auto"
    )
    for image, out in zip(images, made.permute(0, 2, 3, 1).numpy(), strict=True):
        expected = functional.equalize(functional.rotate(Image.fromarray(image), 30))
        np.testing.assert_array_equal(out, np.asarray(expected))


def test_images_that_fixed_point_cannot_reach_are_refused():
    with pytest.raises(InputError, match="got 32 x 40000 pixels; expected sides below about 16,000 px"):
        make_table(Policy(TrivialAugmentPolicy()), 32, 40_000)
    assert concrete("rotate", 30.0, 32, 40_000, True)[0] == policies.AFFINE

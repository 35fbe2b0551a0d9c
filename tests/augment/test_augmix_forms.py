"""What AugMix takes and gives in others' pipelines: forms of images, ranges, settings, devices, copies."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from fastmagn import AugMix
from fastmagn.errors import InputError

FORMS = "uint8 or float [B, 3, H, W], [B, 1, H, W], [3, H, W] or [1, H, W]"
GREATER = {"aug_severity": 10, "all_operations": True}


def by_pillow(images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The views of a batch uint8 [B, C, H, W], made by Pillow itself."""
    return AugMix(**GREATER, seed=seed, backend="pil")(images)


@pytest.fixture
def images(pictures) -> torch.Tensor:
    """uint8 [14, 3, 20, 33]."""
    return torch.from_numpy(pictures(20, 33).copy()).permute(0, 3, 1, 2)


def assert_within_a_level(made: torch.Tensor, expected: torch.Tensor) -> None:
    assert made.shape == expected.shape
    assert made.dtype == expected.dtype == torch.uint8
    assert (made.int() - expected.int()).abs().max() <= 1
    assert (made != expected).float().mean() < 1e-3


@pytest.mark.parametrize("channels", [3, 1])
def test_one_image_is_a_batch_of_one(images, channels):
    batch = images[8:9, :channels]
    made = AugMix(**GREATER)(batch[0])
    assert_within_a_level(made, by_pillow(batch)[0])
    as_float = AugMix(**GREATER)(batch[0] / 255)
    torch.testing.assert_close(as_float * 255, made.float(), rtol=0, atol=0.501)


def test_tv_tensors_come_back_as_tv_tensors_and_labels_pass(images):
    pipeline = v2.Compose([AugMix(**GREATER), v2.ToDtype(torch.float32, scale=True)])
    labels = torch.arange(14)
    made, passed = pipeline(tv_tensors.Image(images), labels)
    assert type(made) is tv_tensors.Image
    assert passed is labels
    assert_within_a_level((made * 255).round().to(torch.uint8), by_pillow(images))
    assert type(AugMix()(tv_tensors.Video(images))) is tv_tensors.Video
    assert type(AugMix()(images)) is torch.Tensor
    assert type(AugMix()(torch.nn.Parameter(images / 255))) is torch.Tensor


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pil_images_come_back_as_pil_images(images, mode):
    picture = Image.fromarray(images[8].permute(1, 2, 0).numpy()).convert(mode)
    pipeline = v2.Compose([AugMix(**GREATER), v2.PILToTensor()])
    made = pipeline(picture)
    assert AugMix()(picture).mode == mode
    assert_within_a_level(made, by_pillow(v2.functional.pil_to_tensor(picture)[None])[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_no_images_give_no_images(dtype):
    augmix, other = AugMix(seed=1), AugMix(seed=1)
    made = augmix(torch.zeros(0, 3, 8, 8, dtype=dtype))
    assert made.shape == (0, 3, 8, 8)
    assert made.dtype == dtype
    image = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    other(image)
    assert torch.equal(augmix(image), other(image))  # a call is a draw, whatever it was for


def picture_of_mode(mode: str) -> Image.Image:
    return Image.new(mode, (8, 8))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 4, 8, 8), f"got float32 [2, 4, 8, 8]; expected {FORMS}."),
        (torch.zeros(2, 3, 8, 8).long(), f"got int64 [2, 3, 8, 8]; expected {FORMS}."),
        (torch.zeros(2, 3, 0, 8), f"got float32 [2, 3, 0, 8]; expected {FORMS}."),
        (torch.zeros(8, 8), f"got float32 [8, 8]; expected {FORMS}."),
        (
            torch.zeros(4, 32, 32, 3),
            f"got float32 [4, 32, 32, 3]; expected {FORMS}. Channels come before height and width:"
            " permute(0, 3, 1, 2).",
        ),
        (
            torch.zeros(32, 32, 3, dtype=torch.uint8),
            f"got uint8 [32, 32, 3]; expected {FORMS}. Channels come before height and width: permute(2, 0, 1).",
        ),
        (
            np.zeros((2, 3, 8, 8), np.float32),
            f"got a ndarray; expected a tensor, {FORMS}, or a PIL image. torch.from_numpy makes a tensor of an array.",
        ),
        (
            (torch.zeros(2, 3, 8, 8), 1),
            f"got a tuple; expected a tensor, {FORMS}, or a PIL image. Labels are further arguments:"
            " augmix(images, labels).",
        ),
        (picture_of_mode("RGBA"), "got 'a PIL image of mode RGBA'; expected RGB or L (image.convert)."),
        (tv_tensors.Mask(torch.zeros(1, 8, 8)), "got 'a tv_tensor Mask'; expected Image or Video."),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(InputError) as error:
        AugMix()(images)
    assert str(error.value) == f"images: {message}"


UNIT = (
    "; expected floats in 0..1. Divide levels 0..255 by 255 or pass uint8, normalise after AugMix and not before it,"
    " and clamp(0, 1) what an interpolation left."
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("low", "high", "got"),
    [
        (0, 255, "values in 0..255"),
        (-2, 2.5, "values in -2..2.5"),
        (-0.5, 1, "values in -0.5..1"),
        (0, float("inf"), "values in 0..inf"),
        (0, float("nan"), "NaN"),
    ],
)
def test_floats_out_of_range_are_refused(dtype, low, high, got):
    images = torch.full((2, 3, 8, 8), 0.5, dtype=dtype)
    images[1, 2, 3, 4], images[0, 0, 0, 0] = high, low
    with pytest.raises(InputError) as error:
        AugMix()(images)
    assert str(error.value) == f"images: got {got}{UNIT}"


def test_what_an_interpolation_leaves_of_0_and_1_is_taken():
    level = 1 / 255
    images = torch.tensor([-0.49 * level, -1e-7, 0, 1, 1.0000001, 1 + 0.49 * level, 0.5, 0.25]).expand(1, 3, 8, 8)
    assert torch.equal(AugMix(seed=4)(images), AugMix(seed=4)(images.clamp(0, 1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aug_severity": 11}, "augment.aug_severity: got 11; expected 1..10."),
        ({"aug_severity": "3"}, "augment.aug_severity: got '3'; expected an integer."),
        ({"aug_severity": 2.5}, "augment.aug_severity: got 2.5; expected an integer."),
        ({"aug_severity": True}, "augment.aug_severity: got True; expected an integer."),
        ({"mixture_width": 0}, "augment.mixture_width: got 0; expected 1..8."),
        ({"mixture_depth": None}, "augment.mixture_depth: got None; expected an integer."),
        ({"all_operations": "no"}, "augment.all_operations: got 'no'; expected True or False."),
        ({"backend": "numbe"}, "augment.backend: got 'numbe'; expected one of "),
        ({"seed": None}, "seed: got None; expected an integer in 0..2^64 - 1, or a torch.Generator on the CPU."),
        ({"seed": 2**64}, f"seed: got {2**64}; expected an integer in 0..2^64 - 1, or a torch.Generator on the CPU."),
        ({"seed": -1}, "seed: got -1; expected an integer in 0..2^64 - 1, or a torch.Generator on the CPU."),
        ({"seed": 1.0}, "seed: got 1.0; expected an integer in 0..2^64 - 1, or a torch.Generator on the CPU."),
    ],
)
def test_other_settings_are_refused(arguments, message):
    with pytest.raises(InputError) as error:
        AugMix(**arguments)
    assert str(error.value).startswith(message)


def test_numpys_numbers_are_settings(images):
    made = AugMix(aug_severity=np.int64(5), mixture_width=np.int8(2), all_operations=np.bool_(True), seed=np.uint64(9))
    expected = AugMix(aug_severity=5, mixture_width=2, all_operations=True, seed=9)
    assert torch.equal(made(images), expected(images))


def test_the_default_device_does_not_matter(images):
    expected = AugMix(seed=3)(images), AugMix(seed=3)(images[:, :1] / 255)
    with torch.device("meta"):  # stands for cuda
        made = AugMix(seed=3)(images), AugMix(seed=3)(images[:, :1].true_divide(255))
        keyed = AugMix(seed=3)(images, indices=list(range(14)), epoch=0)
    assert keyed.shape == images.shape
    for one, other in zip(made, expected, strict=True):
        assert one.device.type == "cpu"
        assert torch.equal(one, other)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda augmix: pickle.loads(pickle.dumps(augmix))])
def test_a_copy_draws_what_the_original_would_and_neither_disturbs_the_other(images, copied):
    generator = torch.Generator().manual_seed(11)
    augmix = AugMix(seed=generator)
    augmix(images)
    other = copied(augmix)
    state = generator.get_state()
    views = other(images), other(images)
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(augmix(images), views[0])
    assert augmix.generator is generator  # the user's own, still shared
    assert torch.equal(augmix(images), views[1])
    assert torch.equal(other(images, indices=range(14), epoch=2), augmix(images, indices=range(14), epoch=2))


def test_a_state_dict_has_no_entry_for_it():
    model = torch.nn.Sequential(AugMix(seed=1), torch.nn.Conv2d(3, 2, 1))
    assert list(model.state_dict()) == ["1.weight", "1.bias"]
    model.load_state_dict(model.state_dict())
    assert not list(AugMix().buffers())


@pytest.mark.parametrize("target", ["alone", "in a dictionary", "in a list"])
def test_boxes_and_masks_are_refused(images, target):
    """torchvision's own AugMix refuses them too: no box fits several moved copies of an image."""
    boxes = tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYXY", canvas_size=(20, 33))
    others = {"alone": boxes, "in a dictionary": {"boxes": boxes, "label": 3}, "in a list": [3, {"boxes": boxes}]}
    with pytest.raises(TypeError, match="not supported"):
        v2.AugMix()(images, boxes)
    with pytest.raises(InputError) as error:
        AugMix()(images, others[target])
    assert str(error.value) == (
        "others: got 'a tv_tensor BoundingBoxes'; expected labels and the like: AugMix moves an image in several ways"
        " at once and cannot move these with it."
    )
    with pytest.raises(InputError, match="a tv_tensor Mask"):
        AugMix()(images, tv_tensors.Mask(images[:, 0]))


def test_a_dictionary_is_refused_with_what_to_do(images):
    with pytest.raises(InputError) as error:
        v2.Compose([AugMix()])({"image": images[0], "label": 3})
    assert str(error.value) == (
        f"images: got a dict; expected a tensor, {FORMS}, or a PIL image. Give its images alone, such as"
        " augmix(sample['image'])."
    )

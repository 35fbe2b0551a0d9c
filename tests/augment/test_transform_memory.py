"""The memory of the public transforms' results: its format, `out`, and that a call allocates nothing more."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import tv_tensors

from fastmagn import AugMix, RandAugment, TrivialAugment
from fastmagn.errors import InputError
from tests.helpers.views import as_tensor

KINDS = [AugMix, TrivialAugment, lambda seed: AugMix(mixture_width=5, seed=seed)]
NAMES = ["augmix", "trivialaugment", "five chains"]
FORMATS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.fixture
def images(pictures) -> Tensor:
    """uint8 [14, 3, 20, 33], contiguous."""
    return as_tensor(pictures(20, 33)).contiguous()


def in_dtype(images: Tensor, dtype: torch.dtype) -> Tensor:
    return images if dtype == torch.uint8 else (images / 255).to(dtype)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_out_is_filled_with_the_same_images_in_any_format(kind, dtype, channels, images):
    given = in_dtype(images[:, :channels], dtype)
    expected = kind(seed=4)(given)
    for source_format in FORMATS:
        source = given.contiguous(memory_format=source_format)
        made = kind(seed=4)(source)
        assert torch.equal(made, expected)
        assert made.is_contiguous(memory_format=source_format)
        for out_format in FORMATS:
            out = torch.empty_like(given, memory_format=out_format).fill_(0)
            assert kind(seed=4)(source, out=out) is out
            assert torch.equal(out, expected)
            assert out.is_contiguous(memory_format=out_format)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_out_can_be_a_part_of_a_batch_or_one_image(kind, images):
    both = torch.zeros(2, *images.shape, dtype=torch.uint8)
    made, keyed = kind(seed=1), kind(seed=1)
    made(images, out=both[1])
    assert not both[0].any()
    assert torch.equal(both[1], keyed(images))
    one = torch.empty_like(images[3])
    assert made(images[3], indices=8, epoch=2, out=one) is one
    assert torch.equal(one, keyed(images[3], indices=8, epoch=2))
    label = torch.tensor(1)
    filled, passed = made(images, label, out=both[0])
    assert passed is label
    assert filled.data_ptr() == both.data_ptr()
    nothing = torch.empty(0, 3, 4, 5)
    assert made(nothing, out=nothing.clone()).shape == nothing.shape


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
@pytest.mark.parametrize("backend", ["pil", "auto"])
def test_out_and_formats_are_the_same_by_pillow(kind, backend, images):
    transform = kind(seed=3)
    transform.backend = backend
    for given in (images, images / 255, images[:, :1]):
        expected = transform(given, indices=range(14), epoch=1)
        out = torch.empty_like(given, memory_format=torch.channels_last)
        assert torch.equal(transform(given, indices=range(14), epoch=1, out=out), expected)
        assert expected.is_contiguous()


class MadeTensors(TorchDispatchMode):
    """Counts the values of all tensors that operations return in new memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        is_new = isinstance(result, Tensor) and not function.is_view and function._schema.name[-1] != "_"
        self.count += result.numel() if is_new else 0
        return result


@pytest.mark.parametrize("image_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_pytorch_makes_no_copy(kind, dtype, image_format, images):
    transform, given = kind(seed=0), in_dtype(images, dtype).contiguous(memory_format=image_format)
    out = torch.empty_like(given)
    transform(given)
    with MadeTensors() as made:
        transform(given, out=out)
    assert made.count < 10  # a draw from the generator
    with MadeTensors() as made:
        transform(given)
    assert made.count < 10 + given.numel()


def test_images_are_left_as_they_are(images):
    before = images.clone()
    TrivialAugment(seed=1)(images, out=torch.empty_like(images))
    AugMix(seed=1)(images / 255)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros(3), "out: got 'a ndarray'; expected a tensor, or None."),
        (
            torch.zeros(2, 3, 8, 9),
            "out: got float32 [2, 3, 8, 9] on cpu; expected float32 [2, 3, 8, 8] on cpu, as the images are.",
        ),
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
            "out: got uint8 [2, 3, 8, 8] on cpu; expected float32 [2, 3, 8, 8] on cpu, as the images are.",
        ),
        (
            torch.zeros(2, 3, 8, 8, device="meta"),
            "out: got float32 [2, 3, 8, 8] on meta; expected float32 [2, 3, 8, 8] on cpu, as the images are.",
        ),
        (
            torch.zeros(2, 4, 8, 8)[:, :3],
            "out: got the strides [256, 64, 8, 1]; expected a contiguous or channels-last tensor.",
        ),
        (
            torch.zeros(1, 3, 8, 8).expand(2, 3, 8, 8),
            "out: got the strides [0, 64, 8, 1]; expected a contiguous or channels-last tensor.",
        ),
        (
            torch.zeros(2, 3, 8, 8, requires_grad=True),
            "out: got a leaf that requires gradients; expected memory without, such as out.detach().",
        ),
    ],
    ids=["array", "shape", "dtype", "device", "strides", "expanded", "leaf"],
)
@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_memory_that_does_not_fit_is_refused(kind, out, message):
    transform = kind(seed=0)
    state = transform.generator.get_state()
    with pytest.raises(InputError) as error:
        transform(torch.zeros(2, 3, 8, 8), out=out)
    assert str(error.value) == message
    assert torch.equal(transform.generator.get_state(), state)  # nothing was drawn


def test_the_images_own_memory_is_refused():
    memory = torch.arange(4 * 192, dtype=torch.uint8).reshape(4, 3, 8, 8)
    before = memory.clone()
    for images, out in ((memory, memory), (memory[:3], memory[1:]), (memory[1:3], memory[:2]), (memory[0], memory[0])):
        with pytest.raises(InputError) as error:
            RandAugment()(images, out=out)
        assert str(error.value) == (
            "out: got memory that the images are in; expected memory of its own, such as torch.empty_like(images)."
        )
    assert torch.equal(memory, before)
    RandAugment(seed=1)(memory[:2], out=memory[2:])
    assert torch.equal(memory[2:], RandAugment(seed=1)(before[:2]))


def test_pil_images_have_no_out(images):
    picture = Image.fromarray(images[8].permute(1, 2, 0).contiguous().numpy())
    with pytest.raises(InputError) as error:
        AugMix()(picture, out=torch.empty_like(images[8]))
    assert str(error.value) == "out: got 'a tensor'; expected None with a PIL image."
    with pytest.raises(InputError) as error:
        AugMix()(Image.new("RGB", (0, 5)))
    assert str(error.value) == "images: got 'a PIL image of 0x5 px'; expected 1 px or more."


def test_tv_tensors_share_the_memory_of_out(images):
    out = torch.empty_like(images)
    made = AugMix(seed=2)(tv_tensors.Image(images), out=out)
    assert type(made) is tv_tensors.Image
    assert made.data_ptr() == out.data_ptr()
    assert torch.equal(out, AugMix(seed=2)(images))
    wrapped = tv_tensors.Image(torch.empty_like(images))
    assert AugMix(seed=2)(images, out=wrapped) is wrapped
    assert torch.equal(wrapped.as_subclass(Tensor), out)


def test_autograd_knows_that_out_has_changed(images):
    weight, out = torch.ones(3, 1, 1, requires_grad=True), images / 255
    loss = (weight * out).sum()
    AugMix(seed=0)(images / 255, out=out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():
        out = torch.empty_like(images)
        AugMix(seed=0)(images, out=out)
    assert torch.equal(out, AugMix(seed=0)(images))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["numba", "pil"])
def test_memory_of_inference_mode_can_be_used_outside_it(dtype, backend, images):
    given = images if dtype == torch.uint8 else (images / 255).to(dtype)
    with torch.inference_mode():
        out = torch.empty_like(given)
    AugMix(seed=0, backend=backend)(given, out=out)
    assert torch.equal(out, AugMix(seed=0, backend=backend)(given))


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_floats_out_of_range_leave_the_rest_of_out(kind, images):
    given = torch.nn.functional.pad(images, (0, 0, 0, 0, 0, 0, 0, 0)).clone() / 255
    memory = torch.full((3, *images.shape), 7.0)
    given[13, 2, 19, 32] = torch.nan
    with pytest.raises(InputError, match=r"^images: got NaN; expected floats in 0\.\.1\."):
        kind(seed=0)(given, out=memory[1])
    assert (memory[[0, 2]] == 7).all()

"""TrivialAugment, RandAugment and AutoAugment as others call them: torchvision's pixels, keys, forms, layouts."""

import copy
import inspect
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from fastmagn import AugMix, AutoAugment, RandAugment, TrivialAugment
from fastmagn.augment.params import ViewSpec, identity_base, sample_view_params
from fastmagn.augment.policies import transforms
from fastmagn.augment.policies.recipe import draw_rows
from fastmagn.augment.policies.table import list_rows, make_table
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from fastmagn_kernels.random import rng
from tests.helpers.views import as_tensor

CLASSES = [TrivialAugment, RandAugment, AutoAugment]
INDICES = np.array([7, 0, 1, 2, 3, 49_999, 2**32 - 1, 4, 5, 6, 8, 9, 10, 11])


@pytest.fixture
def images(pictures) -> torch.Tensor:
    """uint8 [14, 3, 20, 33], channels last."""
    return as_tensor(pictures(20, 33))


@pytest.mark.parametrize("kind", CLASSES)
def test_images_are_torchvisions_for_the_same_draws(kind, images):
    made = kind(seed=3, interpolation="bilinear", fill=(9, 80, 255))
    reference = kind(seed=3, interpolation="bilinear", fill=(9, 80, 255), backend="pil")
    changed = 0
    for _ in range(4):
        expected = reference(images)
        assert torch.equal(made(images), expected)
        changed += (expected != images).flatten(1).any(dim=1).sum()
    assert changed > 20


@pytest.mark.parametrize("kind", CLASSES)
def test_memory_formats_dtypes_and_devices_do_not_matter(kind, images):
    expected = kind(seed=1)(images)
    planar = kind(seed=1)(images.contiguous())
    assert torch.equal(planar, expected)
    assert planar.is_contiguous()
    assert expected.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(kind(seed=1)(images.flip(3).flip(3)[:, :, :, :]), expected)
    assert torch.equal(kind(seed=1)(images / 255), expected / 255)
    half = kind(seed=1)((images / 255).half())
    torch.testing.assert_close(half, (expected / 255).half(), rtol=0, atol=1e-3)
    with torch.device("meta"):  # stands for cuda
        assert torch.equal(kind(seed=1)(images), expected)


def test_large_batches_of_floats_are_those_of_levels(images):
    """Floats are changed some images at a time."""
    many = images.repeat(180, 1, 1, 1)[:2500]
    for form in (many, many.contiguous(), many[:, :1]):
        assert torch.equal(TrivialAugment(seed=1)(form / 255), TrivialAugment(seed=1)(form) / 255)


@pytest.mark.parametrize("kind", CLASSES)
def test_keyed_images_depend_on_sample_and_epoch_alone(kind, images):
    augment = kind(seed=3)
    whole = augment(images, indices=INDICES, epoch=1)
    augment(images)
    order = np.random.default_rng(0).permutation(14)
    assert torch.equal(augment(images[order], indices=INDICES[order].tolist(), epoch=1), whole[order])
    for row in range(14):
        assert torch.equal(augment(images[row], indices=INDICES[row], epoch=1), whole[row])
    assert not torch.equal(augment(images, indices=INDICES, epoch=2), whole)
    assert not torch.equal(kind(seed=4)(images, indices=INDICES, epoch=1), whole)


@pytest.mark.parametrize(
    ("augment", "settings"),
    [
        (TrivialAugment, {"policy": "trivialaugment"}),
        (RandAugment, {"policy": "randaugment"}),
        (AutoAugment, {"policy": "autoaugment_imagenet"}),
    ],
)
def test_keyed_images_are_the_trainers(augment, settings, images):
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    still = identity_base(sample_view_params(5, 7, INDICES, spec, AugmentConfig(), (20, 33))).augment
    augmented = AugmentConfig(**{**vars(still), **settings})
    params = sample_view_params(5, 7, INDICES, spec, augmented, (20, 33))
    expected = make_views(images, params, "pil")
    assert torch.equal(augment(seed=5)(images / 255, indices=INDICES, epoch=7), expected)


def test_grey_images_are_one_channel_of_their_rgb_copies(images):
    grey = images[:, :1]
    made = TrivialAugment(seed=2, fill=77)(grey)
    expected = TrivialAugment(seed=2, fill=77)(grey.expand(-1, 3, -1, -1))
    assert made.shape == grey.shape
    assert torch.equal(made, expected[:, :1])
    picture = Image.fromarray(images[8, 0].numpy())
    assert TrivialAugment()(picture).mode == "L"
    with pytest.raises(InputError, match=r"^fill: got \(1, 2, 3\); expected one number for images of one channel\.$"):
        TrivialAugment(fill=(1, 2, 3))(grey)


def test_forms_come_back_and_labels_pass(images):
    labels = torch.arange(14)
    made, passed = v2.Compose([RandAugment(), v2.ToDtype(torch.float32, scale=True)])(tv_tensors.Image(images), labels)
    assert type(made) is tv_tensors.Image
    assert passed is labels
    boxes = tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYXY", canvas_size=(20, 33))
    with pytest.raises(InputError) as error:
        AutoAugment()(images, boxes)
    assert str(error.value) == (
        "others: got 'a tv_tensor BoundingBoxes'; expected labels and the like: AutoAugment moves the image and cannot"
        " move these with it."
    )
    with pytest.raises(InputError, match="normalise after TrivialAugment and not before it"):
        TrivialAugment()(images.float())
    with pytest.raises(InputError, match=r"trivialaugment\(images, labels\)"):
        TrivialAugment()((images, labels))
    assert TrivialAugment()(images[:0]).shape == (0, 3, 20, 33)


def test_arguments_are_torchvisions(images):
    made = RandAugment(1, 20, 40, v2.InterpolationMode.BILINEAR, [1, 2, 3], seed=1)
    named = RandAugment(
        num_ops=1, magnitude=20, num_magnitude_bins=40, interpolation=2, fill=(1.5, 2.0, 3), seed=1
    )  # fmt: skip
    assert made.policy == named.policy
    assert torch.equal(made(images), named(images))
    assert AutoAugment(v2.AutoAugmentPolicy.SVHN).policy == AutoAugment(policy="svhn").policy
    assert AutoAugment().policy == AutoAugment("imagenet").policy
    assert TrivialAugment(7, "nearest", None).policy == TrivialAugment(num_magnitude_bins=7).policy
    assert torch.equal(RandAugment(num_ops=0)(images), images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrivialAugment(1), "num_magnitude_bins: got 1; expected an integer in 2..256."),
        (
            lambda: TrivialAugment(interpolation="bicubic"),
            "interpolation: got 'bicubic'; expected nearest or bilinear.",
        ),
        (lambda: TrivialAugment(fill="red"), "fill: got 'red'; expected None, a number in 0..255, or three of them."),
        (lambda: TrivialAugment(fill=[1, 2]), "fill: got [1, 2]; expected None, a number in 0..255, or three of them."),
        (lambda: TrivialAugment(fill={}), "fill: got {}; expected None, a number in 0..255, or three of them."),
        (lambda: RandAugment(magnitude=31), "magnitude: got 31; expected an integer in 0..30."),
        (lambda: RandAugment(num_ops=-1), "num_ops: got -1; expected an integer in 0..8."),
        (lambda: AutoAugment("cifar"), "policy: got 'cifar'; expected cifar10, imagenet, svhn."),
        (lambda: AutoAugment(backend="kornia"), "backend: got 'kornia'; expected auto, numba, pil."),
        (lambda: TrivialAugment(seed=None), "seed: got None; expected an integer in 0..2^64 - 1, or a"),
    ],
)
def test_other_settings_are_refused(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value).startswith(message)


def test_policies_that_follow_each_other_draw_apart(monkeypatch):
    """With one seed, the first operation of one says nothing about that of the next: 1 in 14 are the same.

    TrivialAugment and RandAugment list the same operations in the same order.
    """
    images, steps = torch.zeros(7000, 3, 8, 8, dtype=torch.uint8), []

    def record(images, params, policy, out):
        rows = draw_rows(make_table(policy, 8, 8), params.indices, (0, *rng.key_words(params.seed)), (8, 8))
        choices = list_rows(policy.definition, 8, 8).choices
        steps.append(np.array([choices[row[0]][0] for row in rows]))
        return True

    monkeypatch.setattr(transforms, "change_on_host", record)
    made = v2.Compose([TrivialAugment(seed=0), RandAugment(num_ops=2, magnitude=9, seed=0), RandAugment(seed=1)])
    made(images)
    trivial, rand, other = steps
    for one, another in ((trivial, rand), (rand, other), (trivial, other)):
        assert abs((one == another).mean() - 1 / 14) < 5 * np.sqrt(13 / 14**2 / 7000)
    assert len({kind(seed=0)._draw_key() for kind in CLASSES}) == 3


@pytest.mark.parametrize("kind", [AugMix, *CLASSES])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_frames_of_a_video_have_one_draw(kind, dtype, images):
    frames = images if dtype == torch.uint8 else images / 255
    made = kind(seed=3)(tv_tensors.Video(frames))
    assert type(made) is tv_tensors.Video
    for n in range(14):
        assert torch.equal(made[n], kind(seed=3)(frames[n])), "an image's first draw"
    keyed = kind(seed=3)(tv_tensors.Video(frames), indices=7, epoch=1)
    assert torch.equal(keyed, torch.stack([kind(seed=3)(frame, indices=7, epoch=1) for frame in frames]))
    with pytest.raises(InputError, match=r"^indices: got '14 integers'; expected 1, one for all frames\.$"):
        kind()(tv_tensors.Video(frames), indices=INDICES, epoch=1)
    assert kind()(tv_tensors.Video(frames[:0])).shape == (0, 3, 20, 33)


def test_the_frames_of_a_video_have_one_draw_in_a_compiled_graph(images):
    augment = TrivialAugment(seed=3)
    compiled = torch.compile(lambda frames, keys: augment(frames, indices=keys, epoch=1), backend="eager")
    frames, key = tv_tensors.Video(images[:1].repeat(4, 1, 1, 1)), torch.tensor([7])
    assert torch.equal(compiled(frames, key), augment(frames, indices=7, epoch=1))


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda augment: pickle.loads(pickle.dumps(augment))])
def test_a_copy_draws_what_the_original_would(kind, copied, images):
    augment = kind(seed=5, interpolation="bilinear", fill=(1, 2, 3))
    augment(images)
    other = copied(augment)
    assert other.policy == augment.policy
    for _ in range(2):
        assert torch.equal(other(images), augment(images))
    assert torch.equal(other(images, indices=INDICES, epoch=1), augment(images, indices=INDICES, epoch=1))


@pytest.mark.parametrize("kind", CLASSES)
def test_defaults_and_names_of_arguments_are_torchvisions(kind):
    """Every argument of torchvision's class, in its order and with its default; ours follow, by name only."""
    theirs = inspect.signature({TrivialAugment: v2.TrivialAugmentWide}.get(kind) or getattr(v2, kind.__name__))
    ours = list(inspect.signature(kind).parameters.values())
    for mine, their in zip(ours, theirs.parameters.values(), strict=False):
        assert mine.name == their.name
        assert mine.default == getattr(their.default, "value", their.default)
    assert [one.name for one in ours if one.kind is one.KEYWORD_ONLY] == ["seed", "backend"]
    assert len(ours) == len(theirs.parameters) + 2


@pytest.mark.parametrize("kind", CLASSES)
def test_pil_images_come_back_as_pil_images_of_the_same_draw(kind, images):
    picture = Image.fromarray(images[3].permute(1, 2, 0).contiguous().numpy())
    made = kind(seed=2)(picture)
    assert isinstance(made, Image.Image)
    assert np.array_equal(np.asarray(made), kind(seed=2)(images[3]).permute(1, 2, 0).numpy())


def test_it_compiles_as_one_operator():
    images = torch.rand(6, 3, 20, 33, generator=torch.Generator().manual_seed(0))
    eager, augment = TrivialAugment(seed=7), TrivialAugment(seed=7)
    compiled = torch.compile(lambda images: 1 - augment(images), backend="aot_eager", fullgraph=True)
    for _ in range(2):
        assert torch.equal(compiled(images), 1 - eager(images))
    order = torch.zeros((), dtype=torch.int64)
    torch.library.opcheck(
        torch.ops.fastmagn.augment.default, (images, order, torch.arange(6), 4, augment._number, False)
    )  # fmt: skip

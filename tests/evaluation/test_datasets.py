"""`evaluate_robustness` of a torch Dataset: the numbers of the same images in an array; and bad items."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from fastmagn import evaluate_robustness
from fastmagn.errors import InputError
from fastmagn.evaluation.datasets import image_pixels, read_dataset

IMAGES_U8 = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), np.uint8)
LABELS = [0, 1, 2, 1, 0, 2, 1]


class Items(Dataset):
    """Its items, made by a function of the image and the label; counts how often they are read."""

    def __init__(self, make, images=IMAGES_U8, labels=LABELS) -> None:
        self.make, self.images, self.labels, self.num_read = make, images, labels, 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row):
        if row >= len(self):
            raise IndexError(row)
        self.num_read += 1
        return self.make(self.images[row], self.labels[row])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)).eval()


FORMS = {
    "Pillow": lambda image, label: (Image.fromarray(image), label),
    "array": lambda image, label: (image, np.int32(label)),
    "tensor": lambda image, label: (torch.from_numpy(image).permute(2, 0, 1), torch.tensor(label)),
    "tensor, channels last": lambda image, label: (torch.from_numpy(image), torch.tensor([label])),
    "floats": lambda image, label: (torchvision.transforms.functional.to_tensor(image), label),
    "half": lambda image, label: [torch.from_numpy(image).permute(2, 0, 1).double() / 255, label],
    "float array": lambda image, label: (image / np.float32(255), np.array([label])),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_pixels(name):
    images_u8, labels = read_dataset(Items(FORMS[name]), "images_u8")
    np.testing.assert_array_equal(images_u8, IMAGES_U8)
    assert labels == LABELS
    assert all(type(label) is int for label in labels)


@pytest.mark.parametrize("make", [Image.fromarray, lambda grey: grey, lambda grey: torch.from_numpy(grey)[None]])
def test_grey_is_repeated(make):
    grey = IMAGES_U8[..., 0]
    images_u8, _ = read_dataset(Items(lambda image, label: (make(image), label), grey), "images_u8")
    np.testing.assert_array_equal(images_u8, np.stack([grey] * 3, axis=3))


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "L", "RGBA", "P"])
def test_pillow_images_beside_labels_are_converted_as_pairs_are(model, mode):
    pictures = [Image.fromarray(image).convert(mode) for image in IMAGES_U8]
    rgb = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    options = {"corruption_set": "cbar", "num_images": 3, "subset": "first"}
    expected = evaluate_robustness(model, rgb, LABELS, **options)
    assert evaluate_robustness(model, pictures, LABELS, **options) == expected
    assert evaluate_robustness(model, list(zip(pictures, LABELS, strict=True)), **options) == expected


def test_images_without_labels():
    images_u8, labels = read_dataset(Items(lambda image, label: Image.fromarray(image)), "images_u8")
    np.testing.assert_array_equal(images_u8, IMAGES_U8)
    assert labels is None


def test_numbers_are_those_of_arrays_also_beyond_memory(model, monkeypatch):
    """Test images, other images and held-out ones; torch's own classes of datasets among them."""
    dark, fit = IMAGES_U8[:3] // 2, 255 - IMAGES_U8
    options = {"corruption_set": "cbar", "num_images": 5}
    expected = evaluate_robustness(
        model, IMAGES_U8[1:], LABELS[1:], ood={"dark": dark}, held_out=(fit, LABELS), **options
    )
    tensors = TensorDataset(torch.from_numpy(fit).permute(0, 3, 1, 2), torch.tensor(LABELS))
    dataset = Items(FORMS["Pillow"])
    options |= {"ood": {"dark": Items(lambda image, label: image, dark)}, "held_out": tensors}
    assert evaluate_robustness(model, Subset(dataset, range(1, 7)), **options) == expected
    assert dataset.num_read <= 7
    for module in ("datasets", "cells"):
        monkeypatch.setattr(f"fastmagn.evaluation.{module}.KEPT_BYTES", 100)
    assert evaluate_robustness(model, Subset(dataset, range(1, 7)), **options) == expected
    assert dataset.num_read > 5 * 5 * 10


@pytest.mark.parametrize("name", ["Pillow", "array", "tensor", "half"])
def test_a_list_of_lists_of_image_and_label_is_read(model, name):
    """As test images, and as held-out ones."""
    others = 255 - IMAGES_U8
    items, apart = (
        [list(FORMS[name](*pair)) for pair in zip(images, LABELS, strict=True)] for images in (IMAGES_U8, others)
    )
    expected = evaluate_robustness(model, IMAGES_U8, LABELS, held_out=(others, LABELS), corruption_set="cbar")
    assert evaluate_robustness(model, items, held_out=apart, corruption_set="cbar") == expected


def test_two_lists_are_held_out_images_and_their_labels(model):
    images = list(255 - IMAGES_U8[:2])
    options = {"corruption_set": "cbar", "num_images": 3}
    expected = evaluate_robustness(model, IMAGES_U8, LABELS, held_out=(np.stack(images), [1, 0]), **options)
    assert evaluate_robustness(model, IMAGES_U8, LABELS, held_out=[images, [1, 0]], **options) == expected


def test_two_tuples_are_too_as_zip_gives_them(model):
    images = tuple(255 - IMAGES_U8[:2])
    options = {"corruption_set": "cbar", "num_images": 3}
    expected = evaluate_robustness(model, IMAGES_U8, LABELS, held_out=(np.stack(images), [1, 0]), **options)
    pairs = [(images[0], 1), (images[1], 0)]
    arrays = [(images, np.array([1, 0])), (images, torch.tensor([1, 0]))]
    for held_out in (tuple(zip(*pairs, strict=True)), tuple(pairs), pairs, *arrays):
        assert evaluate_robustness(model, IMAGES_U8, LABELS, held_out=held_out, **options) == expected


def test_floats_a_rounding_beyond_the_range_are_the_level_that_they_were():
    pixels = np.array([[[1 + 1e-6, -1e-8, 0.5]] * 8] * 8, np.float32)
    assert np.array_equal(image_pixels(pixels, "image")[0, 0], [255, 0, 128])
    with pytest.raises(InputError, match=r"image: got floats in 0\.5\.\.1\.01; expected 0\.\.1\."):
        image_pixels(np.array([[[1.01, 1, 0.5]] * 8] * 8, np.float32), "image")


def test_held_out_images_are_none_of_the_measured_ones(model):
    with pytest.raises(InputError, match="held_out: got '7 images, 7 of which are measured'; expected other images"):
        evaluate_robustness(model, Items(FORMS["array"]), held_out=Items(FORMS["array"]))


def at_5(change):
    """Items that are sound, but for the one of row 5."""

    class Spoilt(Items):
        def __getitem__(self, row):
            item = super().__getitem__(row)
            return change(*item) if row == 5 else item

    return Spoilt(FORMS["array"])


def fails(image, label):
    raise OSError("broken data stream\nwhen reading image file")


FAULTS = {
    "fails": (fails, "cannot be read (OSError: broken data stream when reading image file)."),
    "another size": (
        lambda image, label: (image[:30], label),
        "got 30x32 px; expected 32x32 px, as in images_u8[0]. Resize",
    ),
    "normalised": (lambda image, label: (image / 100 - 1, label), "expected 0..1. Leave the normalisation out of"),
    "not a number": (lambda image, label: (image * np.nan, label), "got floats in nan..nan; expected 0..1."),
    "int32": (
        lambda image, label: (image.astype(np.int32), label),
        "got int32 [32, 32, 3]; expected a Pillow image, uint8",
    ),
    "two channels": (
        lambda image, label: (image[..., :2], label),
        "got uint8 [32, 32, 2]; expected a Pillow image, uint8",
    ),
    "bfloat16": (
        lambda image, label: (torch.zeros(3, 32, 32, dtype=torch.bfloat16), label),
        "got bfloat16 [3, 32, 32], a tensor that NumPy cannot read; expected a Pillow image, uint8",
    ),
    "float8": (
        lambda image, label: (torch.zeros(3, 32, 32).to(torch.float8_e5m2), label),
        "got float8_e5m2 [3, 32, 32], a tensor that NumPy cannot read; expected a Pillow image, uint8",
    ),
    "sparse": (
        lambda image, label: (torch.zeros(3, 32, 32).to_sparse(), label),
        "got float32 [3, 32, 32], a tensor that NumPy cannot read; expected a Pillow image, uint8",
    ),
    "a text": (lambda image, label: ("a.jpg", label), "got a str; expected a Pillow image, uint8 [H, W, 3]"),
    "16 bits": (
        lambda image, label: (Image.fromarray(image[..., 0].astype(np.uint16)), label),
        "got a Pillow image of mode I;16; expected 8 bits",
    ),
    "a float label": (lambda image, label: (image, 1.0), "got 'the label 1.0'; expected an integer, 0..K-1."),
    "two labels": (
        lambda image, label: (image, torch.tensor([0, 1])),
        "got 'the label tensor([0, 1])'; expected an integer",
    ),
    "no label": (lambda image, label: image, "got 'an item of another form'; expected (image, label)"),
    "a triple": (lambda image, label: (image, label, 3), "got 'a tuple of 3'; expected (image, label)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_item_is_one_line_that_names_it(model, name):
    change, says = FAULTS[name]
    with pytest.raises(InputError) as error:
        evaluate_robustness(model, at_5(change))
    line = str(error.value)
    assert line.startswith("images_u8[5]: ")
    assert says in line
    assert "\n" not in line


def cifar100_like() -> list[dict]:
    """Items as those of Hugging Face's cifar100."""
    pairs = zip(IMAGES_U8, LABELS, strict=True)
    return [{"img": Image.fromarray(image), "fine_label": fine, "coarse_label": 0} for image, fine in pairs]


@pytest.mark.parametrize("argument", ["images_u8", "held_out"])
def test_a_label_of_another_name_is_told_with_its_remedy(model, argument):
    arguments = {"images_u8": IMAGES_U8 // 2, "labels": LABELS} | {argument: cifar100_like()}
    arguments |= {"labels": None} if argument == "images_u8" else {}
    with pytest.raises(InputError) as error:
        evaluate_robustness(model, **arguments)
    field, labels = ("images_u8", "labels") if argument == "images_u8" else ("held_out images", "held_out labels")
    assert str(error.value) == (
        f"{field}[0]: got a dict of img, fine_label, coarse_label; expected a label in it (label, labels, cls). Rename"
        f" one, with Hugging Face dataset.rename_column('fine_label', 'label'), or give the labels as {labels}."
    )


def test_labels_may_be_given_beside_dictionaries(model):
    options = {"corruption_set": "cbar", "num_images": 2}
    expected = evaluate_robustness(model, IMAGES_U8, LABELS, ood={"x": IMAGES_U8}, **options)
    items = cifar100_like()
    assert evaluate_robustness(model, items, LABELS, ood={"x": items}, **options) == expected


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("dataset", "labels", "says"),
    [
        (Stream(), None, "images_u8: got 'no images'; expected at least one."),
        (Items(FORMS["array"], IMAGES_U8[:0]), None, "images_u8: got 'no images'; expected at least one."),
        (
            Items(lambda image, label: image),
            None,
            "labels: got None; expected integers, one for each image; a Dataset of",
        ),
        (Items(FORMS["array"]), [0, 1], "labels: got int64 [2]; expected integers, one for each of 7 images."),
        (
            Items(FORMS["array"], IMAGES_U8[:, :4]),
            None,
            "images_u8: got uint8 [1, 4, 32, 3]; expected a NumPy array uint8",
        ),
        (Items(lambda image, label: (image, -1)), None, "labels: got -1; expected classes, 0..K-1."),
    ],
)
def test_a_dataset_that_cannot_be_measured_is_one_line(model, dataset, labels, says):
    with pytest.raises(InputError) as error:
        evaluate_robustness(model, dataset, labels)
    assert says in str(error.value)

"""`evaluate_robustness` of other datasets: of Hugging Face, WebDataset and torchvision, and any iterable."""

import io
import itertools

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from fastmagn import evaluate_robustness
from fastmagn.config.schema import DataConfig
from fastmagn.data import load_data, load_folder_images
from fastmagn.errors import InputError
from fastmagn.evaluation import datasets as module
from fastmagn.evaluation.datasets import read_dataset
from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.shards import write_tar

IMAGES_U8 = np.random.default_rng(1).integers(0, 256, (7, 32, 32, 3), np.uint8)
LABELS = [0, 1, 2, 1, 0, 2, 1]
PICTURES = [Image.fromarray(image) for image in IMAGES_U8]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)).eval()


def measured(model, images, labels=None, **options) -> dict:
    return evaluate_robustness(model, images, labels, corruption_set="cbar", **options)


def hugging_face():
    """A set with the features Image and ClassLabel, as load_dataset gives it."""
    library = pytest.importorskip("datasets", reason="needs the extra hf")
    features = library.Features({"img": library.Image(), "label": library.ClassLabel(names=["a", "b", "c"])})
    return library.Dataset.from_dict({"img": PICTURES, "label": LABELS}, features=features)


def transform(batch: dict) -> dict:
    tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in batch["img"]]
    return {"pixel_values": tensors, "labels": batch["label"]}


FORMS = {
    "as loaded": lambda loaded: loaded,
    "with_transform": lambda loaded: loaded.with_transform(transform),
    "torch": lambda loaded: loaded.with_format("torch"),
    "stream": lambda loaded: loaded.to_iterable_dataset(),
}


@pytest.mark.parametrize("name", FORMS)
def test_hugging_faces_datasets_are_taken(name):
    images_u8, labels = read_dataset(FORMS[name](hugging_face()), "images_u8")
    np.testing.assert_array_equal(images_u8, IMAGES_U8)
    assert labels == LABELS


def test_the_numbers_are_those_of_the_array_also_beyond_memory(model, monkeypatch):
    expected = measured(model, IMAGES_U8, LABELS, num_images=5)
    loaded = hugging_face().with_transform(transform)
    assert measured(model, loaded, num_images=5) == expected
    for place in ("datasets", "cells"):
        monkeypatch.setattr(f"fastmagn.evaluation.{place}.KEPT_BYTES", 100)
    assert measured(model, loaded, num_images=5) == expected


def test_an_iterable_of_webdataset_is_read_once(model, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    members = {}
    for row, (picture, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
        out = io.BytesIO()
        picture.save(out, "PNG")
        members |= {f"{row}.png": out.getvalue(), f"{row}.cls": str(label).encode()}
    shard = str(write_tar(tmp_path / "val-0.tar", members))
    expected = measured(model, IMAGES_U8, LABELS)
    samples = webdataset.WebDataset(shard, shardshuffle=False).decode("pil")
    assert measured(model, samples) == expected
    assert measured(model, samples.to_tuple("png", "cls")) == expected


def test_a_set_of_torchvision_is_taken(tmp_path):
    """Resize and CenterCrop are torchvision's own; the folder's images are cut out as they are."""
    photos = make_photo_folder(tmp_path, 3, 9)
    crop = Compose([Resize(36, InterpolationMode.BICUBIC), CenterCrop(32)])
    images_u8, labels = read_dataset(torchvision.datasets.ImageFolder(photos / "val", crop), "images_u8")
    expected, expected_labels, _ = load_folder_images(photos / "val", 32, resize_px=36)
    np.testing.assert_array_equal(images_u8, expected)
    assert labels == expected_labels.tolist()


def test_our_own_image_files_are_decoded_in_pieces(model, tmp_path, monkeypatch):
    """The test images of `load_data`, which are not decoded as a whole."""
    photos = make_photo_folder(tmp_path, 3, 9)
    found = load_data(DataConfig(name="folder", dir=photos, image_size=32, num_workers=1))
    expected = measured(model, np.asarray(found.test_images_u8), found.test_labels)
    sizes = []
    decode = type(found.test_images_u8).decode
    monkeypatch.setattr(
        type(found.test_images_u8), "decode", lambda images: sizes.append(len(images)) or decode(images)
    )
    for name in ("KEPT_BYTES", "CHUNK_BYTES"):
        monkeypatch.setattr(f"fastmagn.evaluation.cells.{name}", 3 * 3072)
    assert measured(model, found.test_images_u8, found.test_labels, batch_size=3) == expected
    assert max(sizes) == 3


PAIRS = list(zip(PICTURES, LABELS, strict=True))
OTHERS = {
    "list of pairs": lambda: PAIRS,
    "generator": lambda: (pair for pair in PAIRS),
    "samples of WebDataset": lambda: (
        {"__key__": f"{row:04}", "png": image, "cls": label} for row, (image, label) in enumerate(PAIRS)
    ),
    "dictionaries": lambda: [{"image": image, "label": label, "id": 5} for image, label in PAIRS],
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_iterables_are_taken(model, name):
    assert measured(model, OTHERS[name]()) == measured(model, IMAGES_U8, LABELS)
    two = {"held_out": [(Image.fromarray(255 - image), label) for image, label in zip(IMAGES_U8, LABELS, strict=True)]}
    assert measured(model, OTHERS[name](), held_out=two["held_out"][:2])["temperature_scaling"]["num_images"] == 2


class Endless(IterableDataset):
    def __iter__(self):
        return itertools.cycle(PAIRS)


def fails():
    yield from PAIRS[:5]
    raise OSError("broken data stream\nin a shard")


FAULTS = {
    "fails": (fails, "images_u8[5]: cannot be read (OSError: broken data stream in a shard)."),
    "endless": (Endless, "images_u8: got a Endless of more than 8 images, which come once; expected up to 8 ("),
    "empty": (lambda: iter([]), "images_u8: got 'no images'; expected at least one."),
    "batches": (
        lambda: DataLoader(TensorDataset(torch.zeros(4, 3, 32, 32), torch.zeros(4)), 2),
        "images_u8: got a DataLoader, which yields batches; expected its dataset: loader.dataset.",
    ),
    "two images": (
        lambda: [{"image": image, "png": image, "label": label} for image, label in PAIRS],
        "images_u8[0]: got a dict of image, png, label; expected one image (image, img, ",
    ),
    "no image": (
        lambda: [{"fine_label": label, "coarse_label": label} for label in LABELS],
        "images_u8[0]: got a dict of fine_label, coarse_label; expected one image (image, img, ",
    ),
    "a text": (lambda: "images/", "images_u8: got a str; expected a NumPy array uint8 [N, H, W, 3]"),
    "splits": (lambda: {"test": PAIRS}, "images_u8: got a dict; expected a NumPy array uint8 [N, H, W, 3]"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_taken_is_one_line(model, name, monkeypatch):
    make, says = FAULTS[name]
    monkeypatch.setattr(module, "KEPT_BYTES", 8 * 3072 + 5)
    with pytest.raises(InputError) as error:
        measured(model, make())
    line = str(error.value)
    assert line.startswith(says)
    assert "\n" not in line

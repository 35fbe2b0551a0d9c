"""Classes of the images and of the model: the same names in the same order, or a line before anything is measured."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import Dataset, Subset

import fastmagn.evaluation.cells as cells
from fastmagn import evaluate_robustness
from fastmagn.errors import InputError
from fastmagn.evaluation.class_names import Classes, check_classes
from fastmagn.exporting.classifier import Classifier
from fastmagn.exporting.info import ModelInfo

NUMBERS = tuple(str(number) for number in range(11))
AS_TEXTS = ("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9")
DARK, BRIGHT = (Image.new("RGB", (32, 32), (level,) * 3) for level in (20, 230))


@pytest.fixture(autouse=True)
def few_corruptions(monkeypatch):
    monkeypatch.setattr(cells, "set_members", lambda name, *_: ("contrast",) if name == "c15" else ())


def check(data: str, names: tuple[str, ...], trained: Classes) -> None:
    check_classes(SimpleNamespace(name=data, class_names=names), trained)


@pytest.mark.parametrize(
    ("data", "names", "trained", "trained_names", "first"),
    [
        ("folder", AS_TEXTS, "npz", NUMBERS, "class 2 is '10'; expected '2'"),
        ("npz", NUMBERS, "folder", AS_TEXTS, "class 2 is '2'; expected '10'"),
        ("hf", ("b", "a"), "folder", ("a", "b"), "class 0 is 'b'; expected 'a'"),
    ],
)
def test_the_same_names_in_another_order_are_refused(data, names, trained, trained_names, first):
    """Of eleven folders, sorted as texts, label 2 is the folder 10."""
    with pytest.raises(InputError) as error:
        check(data, names, Classes(trained_names, trained, "RUN"))
    assert str(error.value) == (
        f"data.name: got {data}, whose {first}, as in RUN. The names are the same, in another order. Name the images"
        f" that it was trained for (--data.name {trained}), or other images of the same classes under the same names."
    )


def test_a_warning_names_the_first_class_that_differs(capsys):
    check("npz", ("0", "1", "2"), Classes(("0", "1", "cat"), "folder", "RUN"))
    assert " ".join(capsys.readouterr().out.split()) == (
        "warning: npz: class '2' is treated as 'cat' of RUN, and so on in their order: the classes of one of them are"
        " numbers only."
    )


def classifier(names: tuple[str, ...], data: str = "folder") -> Classifier:
    """It takes dark images for label 0 and bright ones for label 1."""

    def logits(images: np.ndarray) -> np.ndarray:
        brightness = images.reshape(len(images), -1).mean(axis=1) - 0.5
        return np.stack([-brightness, brightness, *[brightness * 0 - 9] * (len(names) - 2)], axis=1).astype(np.float32)

    info = ModelInfo(
        network="resnet_small",
        class_names=names,
        image_size=(32, 32),
        resize_px=32,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        data=data,
        method="standard",
        weights="last",
        bn_views="joint",
        test_time_flip=False,
        noise_draws=0,
        results=None,
        fastmagn="0.2.0",
    )
    return Classifier(logits, info)


def folder(root, **classes: Image.Image) -> torchvision.datasets.ImageFolder:
    for name, picture in classes.items():
        (root / name).mkdir(parents=True)
        picture.save(root / name / "1.png")
        picture.rotate(90).save(root / name / "2.png")
    return torchvision.datasets.ImageFolder(root)


def measured(model, dataset, labels=None, **options) -> float:
    return evaluate_robustness(model, dataset, labels, corruption_set="c15", **options)["clean_accuracy"]


def refused(model, dataset, **options) -> str:
    with pytest.raises(InputError) as error:
        measured(model, dataset, **options)
    return str(error.value)


def test_a_folder_without_one_of_the_classes_is_refused(tmp_path):
    """Its label 0 is dog, which the classifier calls 1."""
    cats_and_dogs, dogs = classifier(("cat", "dog")), folder(tmp_path, dog=DARK)
    line = (
        "got ImageFolder with 1 class; expected the 2 of Classifier(resnet_small, 2 classes of folder, 32x32 px)."
        " Give images of the same classes under the same names, or the labels in the model's order as "
    )
    assert refused(cats_and_dogs, dogs) == f"images_u8: {line}labels."
    assert refused(cats_and_dogs, Subset(Subset(dogs, [0, 1]), [1])) == f"images_u8: {line}labels."
    array = np.stack([np.asarray(BRIGHT)] * 2)
    assert refused(cats_and_dogs, array, labels=[1, 1], held_out=dogs) == f"held_out images: {line}held_out labels."
    assert measured(cats_and_dogs, dogs, [1, 1]) == 0.0
    assert measured(cats_and_dogs, array, [1, 1], held_out=(dogs, [0, 1])) == 1.0


def test_a_dataset_of_the_models_classes_is_measured(tmp_path, capsys):
    both = folder(tmp_path / "named", cat=DARK, dog=BRIGHT)
    assert measured(classifier(("cat", "dog")), both) == 1.0
    assert measured(classifier(("cat", "dog")), Subset(both, [2, 3])) == 1.0
    assert measured(lambda images: classifier(("x", "y"))(images), both) == 1.0, "a function names no classes"
    assert measured(classifier(("x", "y")), [both[0], both[2]]) == 1.0, "a list names none"
    assert "warning" not in capsys.readouterr().out
    numbered = {"0": DARK, "1": BRIGHT}
    assert measured(classifier(("cat", "dog")), folder(tmp_path / "numbered", **numbered)) == 1.0
    assert "ImageFolder: class '0' is treated as 'cat' of Classifier(" in capsys.readouterr().out
    swapped = torchvision.datasets.ImageFolder(tmp_path / "named", target_transform=lambda label: 1 - label)
    assert measured(classifier(("dog", "cat")), swapped) == 0.0, "the user's own function gives the labels"


def test_hugging_faces_names_are_compared():
    library = pytest.importorskip("datasets", reason="needs the extra hf")
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["dog", "cat"])})
    made = library.Dataset.from_dict({"image": [BRIGHT, DARK], "label": [0, 1]}, features=features)
    line = refused(classifier(("cat", "dog")), made)
    assert line.startswith("images_u8: got Dataset, whose class 0 is 'dog'; expected 'cat', as in Classifier(")
    assert ". The names are the same, in another order. Give " in line
    assert refused(classifier(("cat", "dog")), made.to_iterable_dataset()).startswith("images_u8: got IterableDataset,")
    assert measured(classifier(("cat", "dog")), made.with_format("torch"), torch.tensor([1, 0])) == 1.0
    swapped = made.with_transform(lambda rows: rows | {"label": [1 - label for label in rows["label"]]})
    assert measured(classifier(("cat", "dog")), swapped) == 1.0, "the user's own function gives the labels"


class MNIST(Dataset):
    """Names its classes as torchvision's, and holds two images."""

    classes = torchvision.datasets.MNIST.classes

    def __len__(self) -> int:
        return 2

    def __getitem__(self, row):
        return [(DARK, 0), (BRIGHT, 1)][row]


class Flowers102(MNIST):
    """torchvision's has the names of flowers; our names of the same labels are numbers."""

    classes = ("pink primrose", "hard-leaved pocket orchid")


@pytest.mark.parametrize("data", ["digits", "torchvision:MNIST", "npz"])
def test_torchvisions_other_names_of_the_same_classes_are_taken(data):
    assert measured(classifier(NUMBERS[:10], data), MNIST()) == 1.0
    assert measured(classifier(("1", "2"), "torchvision:Flowers102"), Flowers102()) == 1.0


@pytest.mark.parametrize("classes", [2, (("tench", "Tinca tinca"), ("goldfish",)), (), None])
def test_what_is_no_list_of_names_says_nothing(classes):
    dataset = MNIST()
    dataset.classes = classes
    assert measured(classifier(("cat", "dog")), dataset) == 1.0


def test_a_class_that_is_spelt_otherwise_is_a_warning(tmp_path, capsys):
    """Hugging Face's CIFAR-100 has `cra` for crab."""
    dataset = folder(tmp_path, ant=DARK, bee=BRIGHT, cra=BRIGHT)
    assert measured(classifier(("ant", "bee", "crab")), Subset(dataset, [0, 2])) == 1.0
    line = "warning: images_u8: class 'cra' of ImageFolder is treated as 'crab' of Classifier("
    assert line in " ".join(capsys.readouterr().out.split())
    for names in (("ant", "cra", "dog"), ("ant", "dog", "bee"), ("ant", "dog", "elk")):
        assert "got ImageFolder, whose class 1 is 'bee'; expected " in refused(classifier(names), dataset)


class Swapped(Subset):
    """A part of a dataset with labels, and names, of its own."""

    classes = ("dog", "cat")

    def __getitem__(self, index: int):
        image, label = self.dataset[self.indices[index]]
        return image, 1 - label

    def __getitems__(self, indices: list[int]):
        return [self[index] for index in indices]


def test_a_part_with_labels_of_its_own_says_what_they_mean(tmp_path):
    part = Swapped(folder(tmp_path, cat=BRIGHT, dog=DARK), [0, 2])
    assert measured(classifier(("dog", "cat")), part) == 1.0
    assert "whose class 0 is 'dog'; expected 'cat'" in refused(classifier(("cat", "dog")), part)


def test_names_that_earlier_versions_read_with_a_byte_order_mark_are_the_same():
    def check(names: list[str], trained: list[str]) -> None:
        check_classes(
            SimpleNamespace(name="folder", class_names=tuple(names)), Classes(tuple(trained), "folder", "run")
        )

    check(["ape", "bee"], ["\ufeffape", "bee"])
    numbers = [str(number) for number in range(11)]
    with pytest.raises(InputError, match="in another order"):
        check(numbers, sorted("\ufeff" + number for number in numbers))

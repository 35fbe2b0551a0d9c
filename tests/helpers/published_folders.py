"""Tiny folders in the layouts that torchvision's data set classes read, filled with random images."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

SIDE = 40
EMNIST_SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")


def picture(path: Path, number: int) -> None:
    """A random image of its own, 40 x 48 px."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE + 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.write_bytes(head + array.tobytes())


def mnist(root: Path, title: str = "MNIST") -> None:
    generator = np.random.default_rng(3)
    for split, count in (("train", 30), ("t10k", 20)):
        idx(root / title / "raw" / f"{split}-images-idx3-ubyte", generator.integers(0, 256, (count, 28, 28), np.uint8))
        idx(root / title / "raw" / f"{split}-labels-idx1-ubyte", (np.arange(count) * 7 % 10).astype(np.uint8))


def fashion_mnist(root: Path) -> None:
    mnist(root, "FashionMNIST")


def kmnist(root: Path) -> None:
    mnist(root, "KMNIST")


def emnist(root: Path, split: str) -> None:
    generator, first = np.random.default_rng(6), int(split == "letters")
    for part, count in (("train", 60), ("test", 20)):
        path = root / "EMNIST" / "raw" / f"emnist-{split}-{part}"
        idx(path.with_name(f"{path.name}-images-idx3-ubyte"), generator.integers(0, 256, (count, 28, 28), np.uint8))
        idx(path.with_name(f"{path.name}-labels-idx1-ubyte"), (np.arange(count) * 7 % 10 + first).astype(np.uint8))


def svhn(root: Path) -> None:
    generator = np.random.default_rng(4)
    for split, count in (("train", 30), ("test", 20)):
        images = generator.integers(0, 256, (32, 32, 3, count), np.uint8)
        labels = (np.arange(count) * 3 % 10 + 1).astype(np.uint8)[:, None]
        scipy.io.savemat(root / f"{split}_32x32.mat", {"X": images, "y": labels}, do_compression=True)


def stl10(root: Path) -> None:
    folder, generator = root / "stl10_binary", np.random.default_rng(5)
    folder.mkdir()
    for split, count in (("train", 20), ("test", 11), ("unlabeled", 1)):
        (folder / f"{split}_X.bin").write_bytes(generator.integers(0, 256, (count, 3, 96, 96), np.uint8).tobytes())
        (folder / f"{split}_y.bin").write_bytes((np.arange(count) % 10 + 1).astype(np.uint8).tobytes())


def country211(root: Path) -> None:
    for number, (split, name) in enumerate((s, c) for s in ("train", "valid", "test") for c in ("AD", "ZW", "AE")):
        picture(root / "country211" / split / name / f"{number}.jpg", number)


def rendered_sst2(root: Path) -> None:
    for number, (split, name) in enumerate(
        (s, c) for s in ("train", "valid", "test") for c in ("positive", "negative")
    ):
        picture(root / "rendered-sst2" / split / name / f"{number}.png", number)


def imagenette(root: Path) -> None:
    for number, (split, name) in enumerate((s, c) for s in ("train", "val") for c in ("n03888257", "n01440764")):
        picture(root / "imagenette2" / split / name / f"{name}_{number}.JPEG", number)


def dtd(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for number, split in enumerate(("train", "val", "test")):
        lines = [f"{name}/{name}_{number:04}.jpg" for name in ("striped", "banded", "dotted")]
        (folder / "labels" / f"{split}1.txt").write_text("\n".join(lines) + "\n")
        for place, line in enumerate(lines):
            picture(folder / "images" / line, 3 * number + place)


def food(root: Path, per_class: int = 2) -> None:
    for number, split in enumerate(("train", "test")):
        names = {name: [f"{name}/{10 * number + i}" for i in range(per_class)] for name in ("sushi", "apple_pie")}
        (root / "food-101" / "meta").mkdir(parents=True, exist_ok=True)
        (root / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(names))
        for place, name in enumerate(sum(names.values(), [])):  # noqa: RUF017
            picture(root / "food-101" / "images" / f"{name}.jpg", 4 * number + place)


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    data.mkdir(parents=True)
    names = ("DC-3", "Boeing 707-320", "A300B4")
    (data / "variants.txt").write_text("\n".join(names) + "\n")
    for number, split in enumerate(("train", "val", "trainval", "test")):
        lines = [f"{1000 * number + place:07} {name}" for place, name in enumerate(reversed(names))]
        (data / f"images_variant_{split}.txt").write_text("\n".join(lines) + "\n")
        for place in range(3):
            picture(data / "images" / f"{1000 * number + place:07}.jpg", 3 * number + place)


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for number, split in enumerate(("trainval", "test")):
        rows = [("great_pyrenees_1", 2), ("Abyssinian_2", 1), ("Bombay_3", 3), ("Abyssinian_4", 1)]
        lines = [f"{name}{number} {label} 1 {label}" for name, label in rows]
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for place, (name, _) in enumerate(rows):
            picture(folder / "images" / f"{name}{number}.jpg", 4 * number + place)


def gtsrb(root: Path) -> None:
    folder = root / "gtsrb" / "GTSRB"
    for number in range(6):
        picture(folder / "Training" / f"{number % 3:05}" / f"00000_{number:05}.ppm", number)
        (folder / "Training" / f"{number % 3:05}" / f"GT-{number % 3:05}.csv").write_text("Filename;Width\n")
        picture(folder / "Final_Test" / "Images" / f"{number:05}.ppm", 10 + number)
    rows = [f"{number:05}.ppm;48;40;1;1;9;9;{number * 2 % 3}" for number in range(6)]
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join([header, *rows]) + "\n")


def flowers(root: Path) -> None:
    folder = root / "flowers-102"
    for number in range(1, 13):
        picture(folder / "jpg" / f"image_{number:05}.jpg", number)
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 3] * 4], np.uint8)})
    ids = {"trnid": [[5, 1, 9]], "valid": [[2]], "tstid": [[12, 3, 8, 4]]}
    scipy.io.savemat(folder / "setid.mat", {name: np.array(rows, np.uint16) for name, rows in ids.items()})


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.empty((1, 3), object)
    names[0] = ["Acura RL", "BMW M3", "Volvo 240"]
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    fields = [("bbox_x1", "O"), ("class", "O"), ("fname", "O")]
    for split, place in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = np.empty((1, 6), fields)
        for i in range(6):
            picture(folder / f"cars_{split}" / f"{i + 1:05}.jpg", i + (100 if split == "test" else 0))
            rows[0, i] = (7, i % 3 + 1, f"{i + 1:05}.jpg")
        scipy.io.savemat(folder / place, {"annotations": rows})


ARRAYS: dict[str, Callable[[Path], None]] = {
    "MNIST": mnist,
    "FashionMNIST": fashion_mnist,
    "KMNIST": kmnist,
    **{f"EMNIST-{split}": partial(emnist, split=split) for split in EMNIST_SPLITS},
    "SVHN": svhn,
    "STL10": stl10,
}
FILES: dict[str, Callable[[Path], None]] = {
    "Country211": country211,
    "DTD": dtd,
    "FGVCAircraft": aircraft,
    "Flowers102": flowers,
    "Food101": food,
    "GTSRB": gtsrb,
    "Imagenette": imagenette,
    "OxfordIIITPet": pets,
    "RenderedSST2": rendered_sst2,
    "StanfordCars": cars,
}

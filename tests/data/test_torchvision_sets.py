"""Published sets by their torchvision name, against torchvision's own classes on the same folders."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

from fastmagn.config.schema import DataConfig
from fastmagn.data import DATASETS, ENCODED, load_data, load_images
from fastmagn.data.files.decoding import resize_px
from fastmagn.errors import InputError
from fastmagn.registry import resolve
from tests.helpers.published_folders import ARRAYS, FILES

# Arguments of torchvision's classes; others have `split`, train and test.
SPLITS = {
    **dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST"), ({"train": True}, {"train": False})),
    "FGVCAircraft": ({}, {"split": "test"}),
    "OxfordIIITPet": ({}, {"split": "test"}),
    "Imagenette": ({"split": "train"}, {"split": "val"}),
}
NO_CLASSES = {"SVHN": "0123456789", "GTSRB": ("00000", "00001", "00002"), "Flowers102": "123"}


@pytest.fixture(autouse=True)
def _any_checksum(monkeypatch):
    """torchvision compares the MD5 of the published files; these are files of ours."""
    for module in ("svhn", "stl10", "mnist", "flowers102"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: Path(path).exists()
        )
    # Its GTSRB, of a folder with the three classes that a test needs, is not checked either.


def theirs(title: str, root: Path) -> list[Any]:
    title, _, subset = title.partition("-")
    splits = SPLITS.get(title, ({"split": "train"}, {"split": "test"}))
    if subset:
        splits = ({"split": subset, "train": True}, {"split": subset, "train": False})
    return [getattr(torchvision.datasets, title)(str(root), **split) for split in splits]


def class_names(title: str, dataset: Any) -> tuple[str, ...]:
    if title in NO_CLASSES:
        return tuple(NO_CLASSES[title])
    if title == "Imagenette":
        return tuple(dataset.wnids)
    if title == "MNIST":
        return tuple(name[0] for name in dataset.classes)
    return tuple(dataset.classes)


def test_every_set_is_tested():
    named = {name for name in DATASETS if name.startswith("torchvision:")}
    assert named == {f"torchvision:{title}" for title in (*ARRAYS, *FILES, "CIFAR10", "CIFAR100")}
    assert set(ENCODED) >= {f"torchvision:{title}" for title in FILES}


@pytest.mark.parametrize("title", ARRAYS)
def test_arrays_are_torchvisions(title, tmp_path):
    ARRAYS[title](tmp_path)
    image_set = load_images(f"torchvision:{title}", tmp_path)
    parts = (
        (image_set.train_images_u8, image_set.train_labels),
        (image_set.test_images_u8, image_set.test_labels),
    )
    for (images_u8, labels), dataset in zip(parts, theirs(title, tmp_path), strict=True):
        assert labels.tolist() == [dataset[i][1] for i in range(len(dataset))]
        for pixels, (image, _) in zip(np.asarray(images_u8), dataset, strict=True):
            expected = np.asarray(image.convert("RGB"))
            if len(expected) == 28:
                expected = np.pad(expected, ((2, 2), (2, 2), (0, 0)), mode="edge")
            np.testing.assert_array_equal(pixels, expected)
        if title != "STL10":
            assert image_set.class_names == class_names(title, dataset)
    pixels = np.concatenate(
        [np.asarray(image.convert("RGB")).reshape(-1, 3) for image, _ in theirs(title, tmp_path)[0]]
    )
    np.testing.assert_allclose(image_set.mean, (pixels / 255.0).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(image_set.std, (pixels / 255.0).std(axis=0), rtol=1e-9)


@pytest.mark.parametrize("title", FILES)
def test_files_and_labels_are_torchvisions(title, tmp_path):
    FILES[title](tmp_path)
    config = DataConfig(name=f"torchvision:{title}", dir=tmp_path, image_size=32, num_workers=1)
    image_set = load_data(config)
    parts = (
        (image_set.train_images_u8, image_set.train_labels),
        (image_set.test_images_u8, image_set.test_labels),
    )
    for (images_u8, labels), dataset in zip(parts, theirs(title, tmp_path), strict=True):
        assert labels.tolist() == [label for _, label in dataset]
        for pixels, (image, _) in zip(np.asarray(images_u8), dataset, strict=True):
            np.testing.assert_array_equal(pixels, eval_square(image.convert("RGB"), 32, resize_px(config)))
        assert image_set.class_names == class_names(title, dataset)


def eval_square(image: Image.Image, side: int, shorter: int) -> np.ndarray:
    transforms = torchvision.transforms
    bicubic = transforms.InterpolationMode.BICUBIC
    return np.asarray(transforms.Compose([transforms.Resize(shorter, bicubic), transforms.CenterCrop(side)])(image))


@pytest.mark.parametrize("title", [*ARRAYS, *FILES])
def test_a_missing_file_says_what_a_right_folder_looks_like(title, tmp_path):
    with pytest.raises(InputError) as error:
        load_images(f"torchvision:{title}", tmp_path)
    line = str(error.value)
    assert line.startswith(f"data.dir: looked for {title} in {tmp_path}; missing ")
    assert "; expected " in line
    assert line.endswith("Name the folder that holds it with --data.dir; torchvision.datasets downloads it.")
    assert "\n" not in line


def spoil(root: Path, name: str, content: bytes) -> Path:
    (root / name).write_bytes(content)
    return root / name


def refused(title: str, root: Path) -> str:
    with pytest.raises(InputError) as error:
        load_data(DataConfig(name=f"torchvision:{title}", dir=root, image_size=32))
    assert "\n" not in str(error.value)
    return str(error.value)


IDX = "MNIST/raw/train-images-idx3-ubyte"
SPOILT = {
    ("MNIST", IDX, b"\x1f\x8b\x08\0" * 9): "does not begin as an IDX file of bytes does",
    ("MNIST", IDX, bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"x"): "has 17 bytes for an array [4294967295, 4294967295,",
    ("SVHN", "train_32x32.mat", b"MATLAB 5.0" * 30): "cannot be read as a MATLAB file",
    ("STL10", "stl10_binary/train_X.bin", b"x"): "has 1 bytes for 20 labels of 27648 bytes each",
    ("STL10", "stl10_binary/train_y.bin", b"\x0b" * 20): "has labels 10..10 for 10 classes",
    ("Food101", "food-101/meta/train.json", b'{"a": ["../../../etc/passwd"]}'): "names files outside its folder",
    ("Food101", "food-101/meta/train.json", b'{"a": "b"}'): "is not an object of lists of files",
    ("Food101", "food-101/meta/train.json", b"[" * 100_000): "is not JSON",
    ("DTD", "dtd/dtd/labels/train1.txt", b"\xff\xfe"): "is not a text in UTF-8",
    ("DTD", "dtd/dtd/labels/train1.txt", b""): "lists 0 images of 0 classes",
    ("FGVCAircraft", "fgvc-aircraft-2013b/data/images_variant_trainval.txt", b"1 Zeppelin"): "'Zeppelin'",
    ("OxfordIIITPet", "oxford-iiit-pet/annotations/trainval.txt", b"cat_1 x 1 1"): "has lines that are not IMAGE CLASS",
    ("GTSRB", "gtsrb/GT-final_test.csv", b"Filename\na.ppm\n"): "has no columns Filename and ClassId",
    ("GTSRB", "gtsrb/GT-final_test.csv", b"Filename;ClassId\na.ppm;9\n"): "with labels out of range",
    ("Flowers102", "flowers-102/setid.mat", b""): "cannot be read as a MATLAB file",
    ("StanfordCars", "stanford_cars/devkit/cars_train_annos.mat", b"\0" * 300): "it is not the published file",
}


@pytest.mark.parametrize("case", SPOILT, ids=lambda case: f"{case[0]}-{case[2][:12]!r}")
def test_a_spoilt_file_is_one_line(case, tmp_path):
    title, name, content = case
    (ARRAYS | FILES)[title](tmp_path)
    spoil(tmp_path, name, content)
    assert SPOILT[case] in refused(title, tmp_path)


WITHOUT_A_CLASS = {
    ("Imagenette", "imagenette2/val"): (r"imagenette2/val lacks {}; expected the same classes in both\. Download", 0),
    ("Imagenette", "imagenette2/train"): (r"imagenette2/train lacks {}; expected the same classes in both\. Dow", 1),
    ("Country211", "country211/test"): (r"country211/test lacks {}; expected the same classes", 0),
    ("RenderedSST2", "rendered-sst2/test"): (r"rendered-sst2/test lacks {}; expected the same classes", 0),
    ("GTSRB", "gtsrb/GTSRB/Training"): (r"GTSRB/Training: has no folder {} among its 2 class folders; it is not", 0),
}


@pytest.mark.parametrize("case", WITHOUT_A_CLASS, ids="-".join)
def test_a_split_without_a_class_is_one_line(case, tmp_path):
    """Its later classes would get the labels of those before them."""
    title, split = case
    FILES[title](tmp_path)
    message, which = WITHOUT_A_CLASS[case]
    name = sorted(path.name for path in (tmp_path / split).iterdir() if path.is_dir())[which]
    shutil.rmtree(tmp_path / split / name)
    expected = message.format(name)
    config = DataConfig(name=f"torchvision:{title}", dir=tmp_path)
    for read in (load_data, resolve(ENCODED, config.name, "data.name")):
        with pytest.raises(InputError, match=expected) as raised:
            read(config)
        assert "\n" not in str(raised.value)


def pack(root: Path, title: str) -> list[Path]:
    """The files of a set as they are downloaded: the .gz in place of what is in them."""
    packed = []
    for path in (root / title / "raw").iterdir():
        packed.append(path.with_name(f"{path.name}.gz"))
        packed[-1].write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return sorted(packed)


@pytest.mark.parametrize("title", ["MNIST", "FashionMNIST", "EMNIST-letters"])
def test_packed_files_are_the_same_set(title, tmp_path):
    ARRAYS[title](tmp_path)
    expected = load_images(f"torchvision:{title}", tmp_path)
    pack(tmp_path, title.partition("-")[0])
    found = load_images(f"torchvision:{title}", tmp_path)
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(np.asarray(found.test_images_u8), np.asarray(expected.test_images_u8))


HEAD = bytes([0, 0, 8, 3, 0, 0, 0, 30, 0, 0, 0, 28, 0, 0, 0, 28])
SPOILT_PACKED = {
    "not packed": (HEAD, "cannot be unpacked (Not a gzipped file"),
    "truncated": (gzip.compress(HEAD + bytes(range(256)) * 100)[:-50], "cannot be unpacked ("),
    "fewer": (gzip.compress(HEAD + b"x"), "does not hold the bytes of an array [30, 28, 28]"),
    "more": (gzip.compress(HEAD + bytes(30 * 28 * 28 + 1)), "does not hold the bytes of an array [30, 28, 28]"),
    "a bomb": (gzip.compress(HEAD[:4] + b"\xff" * 12), f"cannot be unpacked (it claims {(2**32 - 1) ** 3} values)"),
    "no array": (gzip.compress(b"hello"), "does not begin as an IDX file of bytes does"),
}


@pytest.mark.parametrize("case", SPOILT_PACKED)
def test_a_spoilt_packed_file_is_one_line(case, tmp_path):
    ARRAYS["MNIST"](tmp_path)
    pack(tmp_path, "MNIST")
    path = spoil(tmp_path, f"{IDX}.gz", SPOILT_PACKED[case][0])
    line = refused("MNIST", tmp_path)
    assert line.startswith(f"{path}: ")
    assert SPOILT_PACKED[case][1] in line


def test_a_broken_image_is_left_out_and_counted(tmp_path):
    FILES["Food101"](tmp_path)
    spoil(tmp_path, "food-101/images/sushi/1.jpg", b"not an image")
    with pytest.warns(UserWarning, match="1 of 4 image files cannot be read"):
        image_set = load_data(DataConfig(name="torchvision:Food101", dir=tmp_path, image_size=32))
    assert image_set.train_labels.tolist() == [1, 0, 0]


def test_an_unknown_name_names_the_known_ones(tmp_path):
    with pytest.raises(
        InputError, match=r"data.name: got 'torchvision:Food102'; .*Did you mean 'torchvision:Food101'\?"
    ):
        load_images("torchvision:Food102", tmp_path)

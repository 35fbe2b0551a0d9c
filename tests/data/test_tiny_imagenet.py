"""Tiny-ImageNet as it is unzipped: the same set as its images in folders of classes."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastmagn.config.schema import DataConfig
from fastmagn.data import load_data, load_folder_images, load_measured
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import load_source_images
from fastmagn.evaluation.other_images import find_images

CLASSES = ("n01443537", "n01629819", "n02094433")
VAL = {0: 2, 1: 0, 2: 2, 3: 1, 10: 0, 11: 2}  # val_K.JPEG -> its class
SIDE = 64


@pytest.fixture
def tiny(tmp_path) -> Path:
    """Three classes. The lists in the archive are in no order."""
    rng, root = np.random.default_rng(0), tmp_path / "tiny-imagenet-200"

    def put(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path, "JPEG")

    for name in CLASSES:
        for number in range(3):
            put(root / "train" / name / "images" / f"{name}_{number}.JPEG")
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t62\n")
    for number in VAL:
        put(root / "val" / "images" / f"val_{number}.JPEG")
        put(root / "test" / "images" / f"test_{number}.JPEG")
    annotations(root).write_text(
        "".join(f"val_{k}.JPEG\t{CLASSES[label]}\t0\t32\t44\t62\n" for k, label in VAL.items())
    )
    (root / "wnids.txt").write_text("\n".join(reversed(CLASSES)))
    return root


def annotations(root: Path) -> Path:
    return root / "val" / "val_annotations.txt"


def as_folders(root: Path, to: Path) -> Path:
    """The images in folders of their classes, which is how Tiny-ImageNet is often prepared."""
    for name in CLASSES:
        shutil.copytree(root / "train" / name / "images", to / "train" / name)
        (to / "val" / name).mkdir(parents=True)
    for number, label in VAL.items():
        shutil.copy(root / "val" / "images" / f"val_{number}.JPEG", to / "val" / CLASSES[label])
    return to


def data(root: Path) -> DataConfig:
    return DataConfig(name="folder", dir=root, image_size=SIDE, eval_resize_px=SIDE)


def corrupted_of(root: Path):
    return load_source_images(
        CorruptConfig(out=root / "c", dataset="folder", data_dir=root, image_size=SIDE, num_images=4, seed=3)
    )


@pytest.mark.filterwarnings(r"ignore:.*not used. 3 of another kind \(\.txt\)")
def test_it_is_the_set_in_folders_of_classes(tiny, tmp_path):
    folders = as_folders(tiny, tmp_path / "folders")
    ours, theirs = load_data(data(tiny)), load_data(data(folders))
    assert ours.class_names == theirs.class_names == CLASSES
    for part in ("train", "test"):
        labels = getattr(ours, f"{part}_labels")
        np.testing.assert_array_equal(labels, getattr(theirs, f"{part}_labels"))
        pixels = [np.asarray(getattr(image_set, f"{part}_images_u8")) for image_set in (ours, theirs)]
        np.testing.assert_array_equal(*pixels)
    assert ours.test_labels.tolist() == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("place", ["", "val"])
def test_its_test_images_alone_are_corrupted_and_measured(place, tiny, tmp_path):
    folders = as_folders(tiny, tmp_path / "folders")
    ours, theirs = corrupted_of(tiny / place), corrupted_of(folders / place)
    np.testing.assert_array_equal(np.asarray(ours.images_u8), np.asarray(theirs.images_u8))
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    assert ours.labels.tolist() == theirs.labels.tolist()
    for found, wanted in zip(load_folder_images(tiny / place, 32), load_folder_images(folders, 32), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_val_without_train_and_as_images_of_some_classes(tiny):
    shutil.rmtree(tiny / "train")
    model = ("n00000001", *CLASSES)
    found = load_measured(data(tiny), model)
    assert (found.class_names, found.test_labels.tolist()) == (model, [1, 1, 2, 3, 3, 3])
    others = find_images(tiny / "val", model, {}, image_size=SIDE, resize_px=SIDE, padded_from=None)
    assert others.labels.tolist() == [1, 1, 2, 3, 3, 3]
    np.testing.assert_array_equal(np.asarray(others.images), np.asarray(found.test_images_u8))


def test_images_that_are_not_listed_are_counted(tiny):
    shutil.copy(tiny / "val" / "images" / "val_0.JPEG", tiny / "val" / "images" / "copy.JPEG")
    shutil.rmtree(tiny / "train")
    with pytest.warns(UserWarning, match=r"val: files that are not used: 1 not in val_annotations\.txt\.$"):
        assert len(load_measured(data(tiny)).test_labels) == 6


def test_images_that_are_missing_are_counted(tiny):
    (tiny / "val" / "images" / "val_3.JPEG").unlink()
    shutil.rmtree(tiny / "train")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert len(load_measured(data(tiny)).test_labels) == 5
    assert "1 of 6 image files cannot be read" in str(warned[0].message)
    assert f"no image of 1 class can be read: {CLASSES[1]}." in str(warned[1].message)


def test_a_list_that_was_left_beside_folders_of_classes_is_not_read(tiny, tmp_path):
    folders = as_folders(tiny, tmp_path / "folders")
    (folders / "val" / "val_annotations.txt").write_text("left from the archive")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_data(data(folders)).test_labels.tolist() == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected IMAGE, CLASS and a box on each, with tabs between. Unzip it again."),
        ("val_0.JPEG n01443537\n", "has the line 'val_0.JPEG n01443537'; expected IMAGE, CLASS and a box"),
        ("val_0.JPEG\t\t0\n", "has the line 'val_0.JPEG  0'; expected IMAGE, CLASS and a box"),
        ("a.JPEG\tx\na.JPEG\ty\n", "names a.JPEG twice; expected each image once. Unzip it again."),
        ("../../a.JPEG\tx\n", "names files outside its folder, such as '../../a.JPEG'; it is not"),
        (b"\xff\xfe\t\xff\n", "is not a text in UTF-8"),
        ("a.JPEG\tx\x1b[31m\t1\nb.JPEG\x1b[31m\n", "has the line 'b.JPEG"),
    ],
)
def test_a_damaged_list_is_one_line(content, message, tiny):
    annotations(tiny).write_bytes(content if isinstance(content, bytes) else content.encode())
    shutil.rmtree(tiny / "train")
    with pytest.raises(InputError) as error:
        load_measured(data(tiny))
    assert str(error.value).startswith(f"{annotations(tiny)}: {message}")
    assert str(error.value).isprintable()

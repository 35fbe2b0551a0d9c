"""A folder of one's own images: what is in it, what is left out, what is refused; and its images read lazily."""

import hashlib
import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import DataConfig
from fastmagn.data import FolderImages, load_data, load_folder_images, split_validation
from fastmagn.data.files import on_demand
from fastmagn.errors import InputError
from fastmagn.evaluation import cells as evaluation_cells
from fastmagn.evaluation import measure as evaluation
from tests.helpers.photo_folders import CLASSES, enlarged, small_pictures


def config(folder: Path, **fields) -> DataConfig:
    return DataConfig(name="folder", dir=folder, **{"image_size": 32, **fields})


def test_classes_and_labels_are_those_of_the_folders(photo_folder):
    image_set = load_data(config(photo_folder))
    assert image_set.class_names == CLASSES
    assert (image_set.mean, image_set.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for part, images, labels in (
        ("train", image_set.train_images_u8, image_set.train_labels),
        ("val", image_set.test_images_u8, image_set.test_labels),
    ):
        paths = sorted((photo_folder / part).glob("*/*.jpg"))
        assert [Path(images.files.item(row)) for row in range(len(images))] == paths
        assert [CLASSES[label] for label in labels] == [path.parent.name for path in paths]
        for path, size in zip(paths, images.files.sizes.tolist(), strict=True):
            with Image.open(path) as image:
                assert [image.height, image.width] == size


@pytest.mark.parametrize("resize", [0, 32, 50])
def test_validation_images_are_resized_and_centre_cropped(photo_folder, resize):
    """Independent: torchvision's transforms on Pillow's image; by default, 256 / 224 times the image's side."""
    images = load_data(config(photo_folder, eval_resize_px=resize)).test_images_u8
    transform = transforms.Compose(
        [
            transforms.Resize(resize or round(32 * 256 / 224), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
        ]
    )
    pixels = np.asarray(images)
    assert pixels.shape == images.shape == (25, 32, 32, 3)
    assert images.nbytes == pixels.nbytes
    assert images.dtype == pixels.dtype == np.uint8
    for row in range(25):
        with Image.open(images.files.item(row)) as image:
            np.testing.assert_array_equal(pixels[row], np.asarray(transform(image)))
    np.testing.assert_array_equal(np.asarray(images[5:9]), pixels[5:9])
    np.testing.assert_array_equal(np.array(images[np.array([20, 3])][:1]), pixels[20:21])
    assert isinstance(images[5:9], FolderImages)


def test_at_the_same_resize_it_is_load_folder_images(photo_folder):
    expected, labels, _ = load_folder_images(photo_folder, 32)
    image_set = load_data(config(photo_folder, eval_resize_px=32))
    np.testing.assert_array_equal(np.asarray(image_set.test_images_u8), expected)
    np.testing.assert_array_equal(image_set.test_labels, labels)


def test_decoders_have_the_threads_that_the_process_may_use(photo_folder, monkeypatch):
    """One of 256 CPUs is this process's own."""
    monkeypatch.setattr(os, "cpu_count", lambda: 256)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 256)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 128)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    sizes = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers=None):
            sizes.append(max_workers)
            super().__init__(2)

    monkeypatch.setattr(on_demand, "ThreadPoolExecutor", Pool)
    load_folder_images(photo_folder, 32)
    load_folder_images(photo_folder, 32, num_images=5)
    np.asarray(on_demand.LazyImages(sorted((photo_folder / "val" / "ape").iterdir()), 32))
    np.asarray(load_data(config(photo_folder)).test_images_u8)
    assert sizes == [1, 1, 1, 1]


def test_a_validation_split_is_decoded_as_validation(photo_folder):
    image_set = load_data(config(photo_folder))
    train, held_out = split_validation(image_set, 10, seed=3)
    assert len(train.labels) == len(train.images_u8) == 94
    assert sorted([*train.indices, *held_out.indices]) == list(range(104))
    whole = np.asarray(image_set.train_images_u8)
    np.testing.assert_array_equal(np.asarray(held_out.images_u8), whole[held_out.indices])


class SumsOfPixels(nn.Module):
    """Logits that tell images apart: sums over thirds of the image's rows."""

    def forward(self, images):
        return torch.stack([part.sum(dim=(1, 2, 3)) for part in images.chunk(3, dim=2)], dim=1)


@pytest.mark.parametrize(("kept", "chunk"), [(1 << 30, 1 << 28), (0, 1 << 28), (0, 7 * 32 * 32 * 3), (0, 1)])
def test_every_image_is_measured_once_whatever_is_in_memory(photo_folder, tmp_path, monkeypatch, kept, chunk):
    """Against the same images as an array, in one piece; a rank's few at a time give the same logits, bit for bit."""
    image_set = load_data(config(photo_folder))
    asked, fog = EvalConfig(batch_size=3), evaluation_cells.Corruptions({"fog": (1, 2, 3, 4, 5)})
    measured = {}
    for name, images in (("array", np.asarray(image_set.test_images_u8)), ("files", image_set.test_images_u8)):
        if name == "files":
            monkeypatch.setattr(evaluation_cells, "KEPT_BYTES", kept)
            monkeypatch.setattr(evaluation_cells, "CHUNK_BYTES", chunk)
        cells = list(evaluation_cells.cell_parts(fog, images, slice(0, 25), asked))
        measured[name] = {}
        for cell in cells:
            measured[name].setdefault((cell.name, cell.severity), []).append(cell.images_u8)
            assert name == "array" or len(cell.images_u8) <= max(1, chunk // (32 * 32 * 3))
        ends = [(cell.name, cell.severity) for cell in cells if cell.is_last]
        assert ends == [("clean", 0), *(("fog", severity) for severity in range(1, 6))]
    for key, parts in measured["array"].items():
        np.testing.assert_array_equal(np.concatenate(measured["files"][key]), np.concatenate(parts))


def test_evaluation_of_files_equals_that_of_the_array(photo_folder, monkeypatch):
    image_set = load_data(config(photo_folder))
    names = ("fog", "contrast")
    monkeypatch.setattr(evaluation_cells, "available_corruptions", lambda: names)
    monkeypatch.setattr(evaluation_cells, "set_members", lambda *_: names)
    by_class = {"class_accuracy": {"num_images": []}}
    monkeypatch.setattr(
        evaluation, "summarise", lambda clean, corrupt, *_: {"clean": clean, "corrupt": corrupt} | by_class
    )
    results = []
    for images in (np.asarray(image_set.test_images_u8), image_set.test_images_u8):
        asked = EvalConfig(corruption_set="c15", batch_size=4)
        results.append(
            evaluation.evaluate(SumsOfPixels(), images, image_set.test_labels, asked, device=torch.device("cpu"))
        )
        monkeypatch.setattr(evaluation_cells, "KEPT_BYTES", 0)
        monkeypatch.setattr(evaluation_cells, "CHUNK_BYTES", 9 * 32 * 32 * 3)
    (clean, corrupt), (clean_files, corrupt_files) = ((measured["clean"], measured["corrupt"]) for measured in results)
    assert clean.correct.shape == (25,)
    for name in names:
        for entry, entry_files in zip(corrupt[name], corrupt_files[name], strict=True):
            np.testing.assert_array_equal(entry, entry_files)
    np.testing.assert_array_equal(clean.nll, clean_files.nll)


def test_the_fingerprint_is_of_names_contents_and_labels(photo_folder, tmp_path):
    files = load_data(config(photo_folder)).train_images_u8.files
    digest, former = hashlib.sha256(), hashlib.sha256()
    for path in sorted((photo_folder / "train").glob("*/*.jpg")):
        name, label = path.relative_to(photo_folder / "train").as_posix(), CLASSES.index(path.parent.name)
        digest.update(f"{name}\0{label}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        former.update(f"{name}\0{label}\0{path.stat().st_size}\n".encode())
    assert files.fingerprint == digest.hexdigest()
    assert files.former_fingerprint == former.hexdigest()
    assert files[np.arange(len(files))[::-1]].fingerprint == files.fingerprint
    moved = shutil.copytree(photo_folder, tmp_path / "elsewhere")
    assert load_data(config(moved)).train_images_u8.fingerprint == files.fingerprint
    (moved / "train" / "ape" / "0000.jpg").rename(moved / "train" / "ape" / "zero.jpg")
    assert load_data(config(moved)).train_images_u8.fingerprint != files.fingerprint


def test_changed_pixels_of_the_same_size_are_other_images(tmp_path):
    """In a folder of BMPs every pixel may change without any file's size."""

    def image_set(seed: int):
        for part in ("train", "val"):
            for name in ("a", "b"):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / "0.bmp")
        return load_data(config(tmp_path))

    first = image_set(0)
    fingerprint = first.fingerprint
    second = image_set(1)
    assert second.fingerprint != fingerprint
    assert second.former_fingerprint == first.former_fingerprint


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of three images each, in train and in val."""
    for part in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for i, picture in enumerate(small_pictures(3)):
                Image.fromarray(enlarged(picture, 40, 50)).save(tmp_path / part / name / f"{i}.jpg")
    return tmp_path


def test_what_cannot_be_read_is_left_out_and_counted(folder):
    train = folder / "train" / "a"
    (train / "zero.jpg").write_bytes(b"")
    (train / "text.jpg").write_text("no picture")
    whole = (train / "0.jpg").read_bytes()
    (train / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (10_000, 10_000)).save(train / "bomb.png")
    expected = r"train: 4 of 10 image files cannot be read: .*bomb\.png \(.*\), .*text\.jpg \(.*\), .*truncated\.jpg"
    with pytest.warns(UserWarning, match=expected) as caught:
        image_set = load_data(config(folder))
    assert len(caught) == 1
    assert image_set.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(image_set.train_images_u8) == 6


def test_a_validation_file_that_breaks_later_is_grey_and_counted(folder):
    images = load_data(config(folder)).test_images_u8
    (folder / "val" / "b" / "1.jpg").write_text("no picture")
    with pytest.warns(UserWarning, match=r"val: 1 image cannot be decoded, .*mid-grey stands in .*b/1\.jpg \(cannot"):
        pixels = np.asarray(images)
    assert [bool((image == 128).all()) for image in pixels] == [False] * 4 + [True, False]


def test_a_class_without_validation_images_keeps_the_labels(folder):
    shutil.rmtree(folder / "val" / "a")
    image_set = load_data(config(folder))
    assert image_set.class_names == ("a", "b")
    assert image_set.test_labels.tolist() == [1, 1, 1]


def test_a_class_whose_validation_images_cannot_be_read_is_named(folder):
    for path in (folder / "val" / "b").iterdir():
        path.write_text("no picture")
    with pytest.warns(UserWarning, match=r"val: no image of 1 class can be read: b\. It is not measured\.$"):
        image_set = load_data(config(folder))
    assert image_set.test_labels.tolist() == [0, 0, 0]


def test_pixels_of_floats_are_left_out_at_the_start(folder):
    for path in (folder / "train" / "b").iterdir():
        Image.new("F", (40, 40)).save(path.with_suffix(".tif"))
        path.unlink()
    with (
        pytest.warns(
            UserWarning, match=r"3 of 6 image files cannot be read: .*\(its pixels are floats; expected integ"
        ),
        pytest.raises(InputError, match=r"train: no image of 1 of 2 classes can be read: b;"),
    ):
        load_data(config(folder))


def only_text(folder: Path) -> None:
    for path in folder.glob("train/*/*.jpg"):
        path.write_text("no picture")


def one_level_too_deep(folder: Path) -> None:
    for part in (folder / "train", folder / "val"):
        part.rename(folder / "images")
        part.mkdir()
        (folder / "images").rename(part / "images")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            one_level_too_deep,
            r"train: has one class folder, images; expected two or more, CLASS/IMAGE in it\. The images lie in its"
            r" subfolders a, b: if these are the classes, move them up\.$",
        ),
        (
            lambda folder: shutil.rmtree(folder / "train" / "b"),
            r"train: has one class folder, a; expected two or more, CLASS/IMAGE in it\.$",
        ),
        (
            lambda folder: shutil.rmtree(folder),
            r"data\.dir: .*: no such folder; expected .*/train and .*/val, each",
        ),
        (lambda folder: shutil.rmtree(folder / "train"), r"data\.dir: .*train: no such folder; expected .*CLASS/IMAGE"),
        (lambda folder: shutil.rmtree(folder / "val"), r"data\.dir: .*val: no such folder"),
        (
            lambda folder: (folder / "train" / "c").mkdir(),
            r"train: 1 of 3 class folders hold no image: c; .*Remove",
        ),
        (
            lambda folder: (folder / "val" / "b").rename(folder / "val" / "z"),
            r"val: 1 of 2 class folders are not in .*train: z; expected classes with training images\. Add them to",
        ),
        (only_text, r"train: 6 of 6 image files cannot be read: .*No image is left"),
        (
            lambda folder: [path.write_text("no picture") for path in (folder / "train" / "b").iterdir()],
            r"train: no image of 1 of 2 classes can be read: b; expected classes with training images\. Repair",
        ),
    ],
)
def test_folders_that_cannot_be_used(folder, spoil, message):
    spoil(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=message) as error:
            load_data(config(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 7}, r"data\.image_size: got 7; expected 8\.\.4096 px\."),
        (
            {"eval_resize_px": 31},
            r"data\.eval_resize_px: got 31; expected 0 \(image_size \* 256 / 224\) or 32\.\.4096",
        ),
        ({"min_crop_area": 0.0}, r"data\.min_crop_area: got 0\.0; expected a share of the area in \(0, 1\]"),
        ({"num_workers": -1}, r"data\.num_workers: got -1; expected 0 \(one per core\) or 1\.\.256\."),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(InputError, match=message):
        config(Path(), **fields)

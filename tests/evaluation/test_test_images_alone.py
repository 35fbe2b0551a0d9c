"""Measured where the test images are there and the training images are not: the same results as with both."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import DataConfig
from fastmagn.data import cifar, load_data, load_images, load_measured
from fastmagn.errors import InputError
from fastmagn.evaluate import main
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import load_source_images
from fastmagn.evaluation.ood import _published
from fastmagn.export import main as export
from fastmagn.extend import add_dataset
from fastmagn.machine.files import write_json
from fastmagn.models import build_model
from fastmagn.train import main as train
from tests.data.test_cifar import SMALL, small_files
from tests.data.test_cifar import write as write_cifar
from tests.helpers.own_code import forgotten
from tests.helpers.photo_folders import CLASSES, make_photo_folder
from tests.helpers.run_folders import MEAN, STD, made_results, write_run
from tests.helpers.shards import make_shards
from tests.helpers.small_runs import measures_little


class Kind(NamedTuple):
    """A form of images.

    Args:
        make: Makes the images of both splits in a folder.
        train: What of it the training images are.
        lacking: The class that has no test images.
        classes: The names of the classes.
    """

    make: Callable[[Path], object]
    train: str
    lacking: str | None = "bee"
    classes: tuple[str, ...] = CLASSES


def photos(root: Path, lacking: str = "bee") -> Path:
    """A photo folder one of whose classes has no test images."""
    make_photo_folder(root, 12, 9)
    shutil.rmtree(root / "val" / lacking)
    return root


def shards_by_number(root: Path) -> None:
    make_shards(root, photos(root / "photos", "cat"), 1)
    (root / "classes.txt").unlink()


def shards_by_some_numbers(root: Path) -> None:
    """Two of the classes are named by numbers."""
    folder = photos(root / "photos", "cat")
    for split in ("train", "val"):
        for name, number in (("ape", "1"), ("bee", "2")):
            (folder / split / name).rename(folder / split / number)
    make_shards(root, folder, 1, as_json=True)


def tables(root: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs the extra hf")
    from tests.helpers.tables import make_tables

    make_tables(root, photos(root / "photos"), "disk")


def arrays(root: Path) -> None:
    root.mkdir()
    rng = np.random.default_rng(0)
    for split, labels in (("train", [0, 1, 2, 1]), ("test", [1, 0, 1])):
        images = rng.integers(0, 256, (len(labels), 28, 28), np.uint8)
        np.savez(root / f"{split}.npz", images=images, labels=np.array(labels))


def cifar_files(root: Path) -> None:
    root.mkdir()
    write_cifar(SMALL["cifar10"], root, small_files(SMALL["cifar10"]))


KINDS = {
    "folder": Kind(photos, "train"),
    "webdataset": Kind(lambda root: make_shards(root, photos(root / "photos"), 1), "train-*"),
    "webdataset, names": Kind(lambda root: make_shards(root, photos(root / "photos"), 1, as_json=True), "train-*"),
    "webdataset, some numbers": Kind(shards_by_some_numbers, "train-*", "cat", ("1", "2", "cat")),
    "webdataset, numbers": Kind(shards_by_number, "train-*", "2", ("0", "1", "2")),
    "hf": Kind(tables, "train"),
    "npz": Kind(arrays, "train.npz", "2", ("0", "1", "2")),
    "cifar10": Kind(cifar_files, "cifar-10-batches-py/data_*", None, tuple(f"class {k}" for k in range(10))),
}


@pytest.fixture(autouse=True)
def little(monkeypatch, request):
    measures_little(monkeypatch)
    if "cifar10" in request.node.name:
        monkeypatch.setattr(cifar, "CIFAR10", SMALL["cifar10"])


def made(kind: str, folder: Path) -> Path:
    """The images, and a run that was trained on them; the folder of the run."""
    KINDS[kind].make(folder / "images")
    fields = ["--data.name", kind.partition(",")[0], "--data.dir", str(folder / "images"), "--data.image_size", "32"]
    fields += ["--run_dir", str(folder / "run"), "--model.name", "resnet_small", "--device", "cpu"]
    config = parse_config(fields, "test", "A test.")
    classes = KINDS[kind].classes
    model = build_model("resnet_small", num_classes=len(classes), mean=MEAN, std=STD, seed=3).eval()
    write_run(folder / "run", config, model=model)
    write_json(folder / "run" / "results.json", made_results(config, class_names=classes))
    return folder / "run"


def leave_out_training(kind: str, folder: Path) -> None:
    for path in (folder / "images").glob(KINDS[kind].train):
        shutil.move(path, folder)


def measured(out: Path, *what: str) -> dict:
    assert main([*what, "--device", "cpu", "--eval.corruption_set", "c15", "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    del results["environment"]
    return results


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_with_training_images(kind, tmp_path):
    run_dir = made(kind, tmp_path)
    ways = [("--run", str(run_dir)), ("--weights", str(run_dir / "checkpoints" / "last.pt"))]
    ways = ways if kind == "folder" else ways[:1]
    before = [measured(tmp_path / "before.json", *way) for way in ways]
    whole = load_data(parse_config(["--config", str(run_dir / "config.yaml")], "test", "A test.").data)
    leave_out_training(kind, tmp_path)
    assert [measured(tmp_path / "after.json", *way) for way in ways] == before
    alone = load_measured(parse_config(["--config", str(run_dir / "config.yaml")], "test", "A test.").data, CLASSES)
    assert len(alone.train_labels) == 0
    if KINDS[kind].lacking is not None:
        assert KINDS[kind].classes.index(KINDS[kind].lacking) not in whole.test_labels
        assert before[0]["num_images"] == len(whole.test_labels) > 1


def test_an_exported_file_and_weights_of_others(tmp_path):
    """Others' weights do not say their classes: here those of the test images, as all of them are among these."""
    run_dir, file = made("folder", tmp_path), tmp_path / "model.safetensors"
    assert export(["--run", str(run_dir), "--format", "safetensors", "--out", str(file)]) == 0
    others = tmp_path / "others.pt"
    torch.save(torch.load(run_dir / "checkpoints" / "last.pt", weights_only=True)["model"], others)
    images = ["--data.name", "folder", "--data.dir", str(tmp_path / "images"), "--data.image_size", "32"]
    ways = [("--weights", str(file), *images), ("--weights", str(others), "--model.name", "resnet_small", *images)]
    before = [measured(tmp_path / "before.json", *way) for way in ways]
    leave_out_training("folder", tmp_path)
    assert measured(tmp_path / "after.json", *ways[0]) == before[0]
    with pytest.raises(InputError, match="has no classifier for the 2 classes of folder"):
        measured(tmp_path / "after.json", *ways[1])
    shutil.copytree(tmp_path / "train" / "bee", tmp_path / "images" / "val" / "bee")
    again = measured(tmp_path / "after.json", *ways[1])
    shutil.move(tmp_path / "train", tmp_path / "images")
    assert measured(tmp_path / "before.json", *ways[1]) == again
    assert again["num_images"] > before[1]["num_images"]


def test_other_classes_than_the_runs_are_refused(tmp_path):
    run_dir = made("folder", tmp_path)
    leave_out_training("folder", tmp_path)
    (tmp_path / "images" / "val" / "ape").rename(tmp_path / "images" / "val" / "ass")
    for way in (("--run", str(run_dir)), ("--weights", str(run_dir / "checkpoints" / "last.pt"))):
        with pytest.raises(InputError, match=r"^data\.name: got folder with 2 classes; expected the 3 of .*run\. Name"):
            measured(tmp_path / "out.json", *way)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_refuses_as_before_and_makes_nothing(kind, tmp_path, capsys):
    KINDS[kind].make(tmp_path / "images")
    leave_out_training(kind, tmp_path)
    files = sorted(tmp_path.rglob("*"))
    images = ["--data.name", kind.partition(",")[0], "--data.dir", str(tmp_path / "images")]
    with pytest.raises(InputError, match=r"^data\.dir: "):
        train([*images, "--data.image_size", "32", "--run_dir", str(tmp_path / "run"), "--device", "cpu"])
    assert sorted(tmp_path.rglob("*")) == files


def test_what_needs_training_images_says_so(tmp_path):
    run_dir = made("folder", tmp_path)
    leave_out_training("folder", tmp_path)
    with pytest.raises(InputError) as error:
        measured(tmp_path / "out.json", "--run", str(run_dir), "--eval.temperature_images", "validation")
    assert str(error.value) == (
        "eval.temperature_images: got validation; expected test or a folder, as there are test images only. Give the"
        " data.dir that has the run's training images for validation."
    )


def test_the_normalisation_of_arrays_must_be_given(tmp_path):
    arrays(tmp_path / "images")
    (tmp_path / "images" / "train.npz").unlink()
    model = build_model("resnet_small", num_classes=2, mean=MEAN, std=STD, seed=3)
    torch.save(model.network.state_dict(), tmp_path / "a.pt")
    way = ["--weights", str(tmp_path / "a.pt"), "--model.name", "resnet_small", "--data.name", "npz", "--data.dir"]
    way.append(str(tmp_path / "images"))
    with pytest.raises(InputError) as error:
        measured(tmp_path / "out.json", *way, "--std", "0.5")
    assert str(error.value) == (
        f"mean: got none; expected --mean and --std, as {tmp_path}/a.pt does not say them, and there are no training"
        " images of npz that could."
    )
    results = measured(tmp_path / "out.json", *way, "--std", "0.5", "--mean", "0.25")
    assert (results["num_images"], results["normalisation"]) == (3, {"mean": [0.25] * 3, "std": [0.5] * 3})


def test_arrays_of_test_images_in_every_layout(tmp_path):
    """CIFAR-10.1's arrays may be saved under any of these names; a class may be missing, if its name is there."""
    images, labels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8), np.array([2, 0, 2])
    names = np.array(["a", "b", "c", "d"])
    np.savez(tmp_path / "published.npz", test_images=images, test_labels=labels, class_names=names)
    np.savez(tmp_path / "keras.npz", x_test=images, y_test=labels)
    for folder in ("parts", "files"):
        (tmp_path / folder).mkdir()
    np.savez(tmp_path / "parts" / "test.npz", images=images, labels=labels)
    np.save(tmp_path / "files" / "val_images.npy", images)
    np.save(tmp_path / "files" / "val_labels.npy", labels)
    for place, wanted in (("published.npz", "abcd"), ("keras.npz", "012"), ("parts", "012"), ("files", "012")):
        alone = load_measured(DataConfig(name="npz", dir=tmp_path / place))
        np.testing.assert_array_equal(np.asarray(alone.test_images_u8), images)
        assert (alone.test_labels.tolist(), alone.class_names) == ([2, 0, 2], tuple(wanted))
        source = load_source_images(CorruptConfig(out=tmp_path / "c", dataset="npz", data_dir=tmp_path / place))
        assert source.labels.tolist() == [2, 0, 2]
        with pytest.raises(InputError, match=r"^data\.dir: looked for arrays of images in .*; expected DIR/NAME\.npz"):
            load_data(DataConfig(name="npz", dir=tmp_path / place))


@pytest.mark.parametrize(
    ("own", "model", "wanted", "labels"),
    [
        (("ape", "cat"), ("dog", "cat", "ape"), ("dog", "cat", "ape"), [2, 1]),
        (("0", "1"), ("x", "y", "z"), ("0", "1", "2"), [0, 1]),
        (("0", "1"), ("0", "1", "10", "11"), ("0", "1", "2", "3"), [0, 1]),
        (("ape", "cow"), ("dog", "cat", "ape"), ("ape", "cow"), [0, 1]),
        (("0", "1"), ("0",), ("0", "1"), [0, 1]),
    ],
)
def test_labels_are_the_models_where_names_say_which(own, model, wanted, labels, tmp_path):
    """Numbers name nothing: what they mean, the check of the classes judges, as for whole sets."""
    images = np.zeros((2, 32, 32, 3), np.uint8)
    names = {} if own[0] == "0" else {"class_names": np.array(own)}
    np.savez(tmp_path / "a.npz", test_images=images, test_labels=np.array([0, 1]), **names)
    found = load_measured(DataConfig(name="npz", dir=tmp_path), model)
    assert (found.class_names, found.test_labels.tolist()) == (wanted, labels)


def test_a_line_says_that_classes_are_missing(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", test_images=np.zeros((2, 32, 32, 3), np.uint8), test_labels=np.array([0, 1]))
    load_measured(DataConfig(name="npz", dir=tmp_path), ("0", "1", "2"))
    assert "warning: there are test images of 2 of the model's 3 classes." in capsys.readouterr().out


def test_an_own_set_without_training_images_has_its_own_message(tmp_path):
    with forgotten():
        add_dataset("mine", lambda folder, download: load_images("npz", folder, download))
        with pytest.raises(InputError, match=r"^data\.dir: looked for arrays of images in .*, found no"):
            load_measured(DataConfig(name="mine", dir=tmp_path))


def test_images_of_other_classes_need_no_training_images(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "CIFAR10", SMALL["cifar10"])
    cifar_files(tmp_path / "set")
    data = DataConfig(name="digits", dir=tmp_path / "set")
    whole = _published("cifar10", data, 32)
    for path in (tmp_path / "set" / "cifar-10-batches-py").glob("data_*"):
        path.unlink()
    for found, wanted in zip(_published("cifar10", data, 32), whole, strict=True):
        np.testing.assert_array_equal(found[:], wanted[:])


def test_folders_named_by_numbers_are_names(tmp_path):
    """Sorted as texts, 10 stands before 2."""
    make_photo_folder(tmp_path, 0, 6)
    for old, new in zip(CLASSES, ("0", "1", "2"), strict=True):
        (tmp_path / "val" / old).rename(tmp_path / "val" / new)
    data = DataConfig(name="folder", dir=tmp_path, image_size=32)
    found = load_measured(data, ("0", "1", "10", "2"))
    assert found.test_labels.tolist() == [0, 0, 1, 1, 3, 3]
    assert found.test_fingerprint != dataclasses.replace(found, class_names=("0", "1", "2", "3")).test_fingerprint
    np.testing.assert_array_equal(found.test_images_u8.files.labels, found.test_labels)


def test_one_damaged_split_is_not_a_missing_one(tmp_path):
    """Training images that are there, but cannot be used, are not passed over."""
    run_dir = made("folder", tmp_path)
    shutil.rmtree(tmp_path / "images" / "train" / "ape")
    with pytest.raises(InputError, match=r"1 of 2 class folders are not in .*: ape"):
        measured(tmp_path / "out.json", "--run", str(run_dir))
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images").mkdir()
    for name, says in (("folder", "images/train: no such folder"), ("webdataset", "no files of this split .train-")):
        with pytest.raises(InputError, match=says):
            load_measured(DataConfig(name=name, dir=tmp_path / "images"))

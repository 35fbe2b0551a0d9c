"""Whole runs on tar shards: the run on the folder they were made of, resumed, evaluated, corrupted."""

import json
from pathlib import Path

import numpy as np
import pytest

from fastmagn.config.command_line import parse_config
from fastmagn.corruptions import corrupt
from fastmagn.data import load_folder_images
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import make_corrupted_set, verify_corrupted_set
from fastmagn.training.run import train
from tests.helpers.photo_folders import CLASSES, make_photo_folder
from tests.helpers.shards import make_shards
from tests.helpers.small_runs import assert_same_weights, weights

SIDE = 32


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photo_folder(tmp_path_factory.mktemp("photos"), 24, 9)


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), photos)


def run(name: str, folder: Path, run_dir: Path, steps: int, *arguments: str) -> dict:
    fields = {
        **{"data.name": name, "data.dir": folder, "data.image_size": SIDE, "data.num_workers": 2, "run_dir": run_dir},
        **{"train.epochs": 2, "train.batch_size": 8, "train.max_steps": steps, "train.amp": "float32", "device": "cpu"},
        **{"method": "standard", "eval.corruption_set": "c15", "eval.num_images": 3},
    }
    own = [str(part) for key, value in fields.items() for part in (f"--{key}", value)]
    return train(parse_config([*own, *arguments], "t", "T."))


def test_a_run_on_shards_is_the_folders_to_the_bit_and_resumes(photos, shards, tmp_path):
    """Stopped after 2 of the first epoch's 3 steps."""
    run("folder", photos, tmp_path / "folder", 5)
    assert run("webdataset", shards, tmp_path / "shards", 2)["steps"] == 2
    run("webdataset", shards, tmp_path / "shards", 5)
    assert_same_weights(weights(tmp_path / "shards"), weights(tmp_path / "folder"))
    measured = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("folder", "shards")]
    assert measured[0]["corruption_accuracy"] == measured[1]["corruption_accuracy"]


def test_other_test_shards_measure_a_finished_run_again(shards, tmp_path):
    """Also where an earlier version measured it, which kept no fingerprint of the test images."""
    assert run("webdataset", shards, tmp_path, 1, "--eval.num_images", "0")["num_images"] == 9
    trained, results = weights(tmp_path), tmp_path / "results.json"
    shard = ["--data.test_shards", "val-001.tar", "--eval.num_images", "0"]
    assert run("webdataset", shards, tmp_path, 1, *shard)["num_images"] == 3
    assert_same_weights(weights(tmp_path), trained)
    older = json.loads(results.read_text())
    del older["test_fingerprint"]
    results.write_text(json.dumps(older))
    assert run("webdataset", shards, tmp_path, 1, "--eval.num_images", "0")["num_images"] == 9


@pytest.mark.parametrize("has_names", [True, False])
def test_a_corrupted_set_is_made_of_shards(photos, shards, tmp_path, has_names):
    """Equal to the corruptions of the images of the folder."""
    source = shards
    if not has_names:
        source = tmp_path / "unnamed"
        source.mkdir()
        (source / "val-0.tar").symlink_to(shards / "val-000.tar")
    wanted = CorruptConfig(
        out=tmp_path / "c", dataset="webdataset", data_dir=source, image_size=SIDE, corruption_set="c15"
    )
    manifest = make_corrupted_set(wanted, lambda text: None)
    images_u8, labels, names = load_folder_images(photos / "val", SIDE, resize_px=37)
    if not has_names:
        images_u8, labels, names = images_u8[:3], labels[:3], ("0",)
    assert names == (CLASSES if has_names else ("0",))
    assert manifest["dataset"] == "webdataset"
    np.testing.assert_array_equal(np.load(tmp_path / "c" / "labels.npy")[: len(labels)], labels)
    expected = corrupt(images_u8, "fog", 2, seed=0)
    np.testing.assert_array_equal(np.load(tmp_path / "c" / "fog.npy")[len(labels) : 2 * len(labels)], expected)
    assert verify_corrupted_set(wanted) == []

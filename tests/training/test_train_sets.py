"""Whole runs on an .npz file, a published set of files and a table: resumed, by two processes, and corrupted."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fastmagn.corruptions import corrupt
from fastmagn.data import load_images
from fastmagn.evaluate import main as evaluate
from fastmagn.evaluation.corrupt_command import main as corrupt_command
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import verify_corrupted_set
from fastmagn.training.run import train
from tests.helpers import processes
from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.published_folders import gtsrb
from tests.helpers.small_runs import assert_ends_alike, config_for, knows_the_network, rows, weights
from tests.helpers.tiers import slow_but

SETS = ("npz", "torchvision:GTSRB", *(["hf"] if find_spec("pyarrow") else []))
OPTIONS = [
    *("--device", "cpu", "--train.batch_size", "2", "--train.epochs", "2", "--train.amp", "float32"),
    *("--model.name", "smooth", "--method", "augmix", "--model.sync_bn", "true"),
    *("--data.image_size", "32", "--data.source", "pillow", "--data.num_workers", "1"),
    *("--eval.corruption_set", "cbar", "--eval.num_images", "3", "--eval.num_bins", "3"),
]


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    knows_the_network(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder that holds all these sets."""
    root, generator = tmp_path_factory.mktemp("sets"), np.random.default_rng(2)
    gtsrb(root)
    if "hf" in SETS:
        from tests.helpers.tables import make_tables

        make_tables(root, make_photo_folder(tmp_path_factory.mktemp("photos"), 6, 6), "parquet")
    arrays = {}
    for split, count in (("train", 6), ("test", 6)):
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3)[:, None]
    np.savez(root / "arrays.npz", **arrays)
    return root


def config(name: str, folder: Path, run_dir: Path, *more: str):
    return config_for([*OPTIONS, "--data.name", name, "--data.dir", str(folder)], run_dir, *more)


@pytest.mark.parametrize("name", slow_but(SETS, "npz"))
def test_a_stopped_run_resumes_to_the_bit(folder, tmp_path, name):
    train(config(name, folder, tmp_path / "whole"))
    assert [row["step"] for row in rows(tmp_path / "whole")] == [3, 6]
    for steps in ("1", "5"):
        train(config(name, folder, tmp_path / "stopped", "--train.max_steps", steps))
    train(config(name, folder, tmp_path / "stopped"))
    assert_ends_alike(tmp_path / "stopped", tmp_path / "whole")
    results = [json.loads((tmp_path / run / "results.json").read_text()) for run in ("whole", "stopped")]
    assert results[0]["corruption_accuracy"] == results[1]["corruption_accuracy"]
    assert results[0]["subset"] == {"chosen": "by class", "of": 6, "seed": 0}
    assert results[0].get("padded_from") == ([28, 28] if name == "npz" else None)
    evaluate(["--run", str(tmp_path / "whole"), "--device", "cpu"])
    again = json.loads((tmp_path / "whole" / "evaluation.json").read_text())
    assert again["corruption_accuracy"] == results[0]["corruption_accuracy"]


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_train_on_the_images_of_one(folder, tmp_path):
    """On images in files or in a table; arrays in memory are those of tests/machine/test_processes.py."""
    name = SETS[-1]
    train(config(name, folder, tmp_path / "one"))
    own = [*OPTIONS, "--data.name", name, "--data.dir", str(folder), "--run_dir", str(tmp_path / "two")]
    processes.run([*processes.TWO_PROCESSES, "tests/helpers/smooth_network.py", *own], processes.ROOT)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():
        np.testing.assert_allclose(two[key].numpy(), value.numpy(), rtol=1e-3, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", slow_but(SETS, "npz"))
def test_a_corrupted_set_is_made_and_verified(folder, tmp_path, name):
    size = ["--image_size", "32"] if name != "npz" else []
    out = tmp_path / "c"
    made = ["--dataset", name, "--data_dir", str(folder), "--num_images", "3", "--corruption_set", "cbar"]
    assert corrupt_command([*made, *size, "--out", str(out)]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["subset"] == {"chosen": "by class", "of": 6, "seed": 0}
    assert verify_corrupted_set(CorruptConfig(out=out, data_dir=folder)) == []
    if name == "npz":
        images_u8 = np.asarray(load_images("npz", folder).test_images_u8)
        name, stored = manifest["corruptions"][0], np.load(out / f"{manifest['corruptions'][0]}.npy")[:3]
        each = [corrupt(images_u8[[i]], name, 1, seed=0, indices=np.array([i]))[0] for i in range(6)]
        assert all(any(np.array_equal(image, one) for image in each) for one in stored)

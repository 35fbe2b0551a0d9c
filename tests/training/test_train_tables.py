"""The commands on parquet and arrow files: the folder's numbers and sets, which they were made of."""

import json
from pathlib import Path

import numpy as np
import pytest

from fastmagn.corruptions import corrupt
from fastmagn.data import load_folder_images
from fastmagn.evaluate import main as evaluate
from fastmagn.evaluation.corrupt_command import main as corrupt_command
from fastmagn.training.run import train
from tests.helpers.photo_folders import CLASSES, make_photo_folder
from tests.helpers.small_runs import config_for, knows_the_network
from tests.helpers.tiers import slow_but

pytest.importorskip("pyarrow", reason="needs the extra hf")
from tests.helpers.tables import make_tables

SIDE = 32
LAYOUTS = ("parquet", "disk")  # and arrow files as save_to_disk writes them
OPTIONS = [
    *("--device", "cpu", "--train.batch_size", "4", "--train.epochs", "1", "--train.amp", "float32"),
    *("--model.name", "smooth", "--method", "standard", "--data.image_size", str(SIDE), "--data.eval_resize_px", "36"),
    *("--data.source", "pillow", "--data.num_workers", "1"),
    *("--eval.corruption_set", "cbar", "--eval.num_images", "7", "--eval.num_bins", "3"),
]


@pytest.fixture(autouse=True)
def _network(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    knows_the_network(monkeypatch)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return make_photo_folder(tmp_path_factory.mktemp("photos"), 12, 9)


@pytest.fixture(scope="module", params=LAYOUTS)
def tables(photos, tmp_path_factory, request) -> Path:
    return make_tables(tmp_path_factory.mktemp(request.param), photos, request.param)


def corrupted(tables: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--dataset", "hf", "--data_dir", str(tables), "--image_size", str(SIDE), "--resize_px", "36"),
        *("--corruption_set", "cbar", "--out", str(out), *more),
    ]


def test_the_corrupt_command_makes_the_folders_set(photos, tables, tmp_path, capsys):
    out = tmp_path / "c"
    assert corrupt_command(corrupted(tables, out)) == 0
    assert "made 450 images in " in capsys.readouterr().out
    images_u8, labels, names = load_folder_images(photos / "val", SIDE, resize_px=36)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["class_names"] == list(CLASSES) == list(names)
    assert np.load(out / "labels.npy").tolist() == 5 * labels.tolist()
    for name in manifest["corruptions"]:
        stored = np.load(out / f"{name}.npy").reshape(5, 9, SIDE, SIDE, 3)
        np.testing.assert_array_equal(stored[2], corrupt(images_u8, name, 3, seed=0))
    own = ["--verify", "--out", str(out), "--data_dir", str(tables)]
    assert corrupt_command(own) == 0  # the manifest says how they were resized
    assert corrupt_command([*own, "--resize_px", "36"]) == 0
    assert corrupt_command([*own, "--resize_px", "40"]) == 1  # other images


@pytest.mark.parametrize("tables", slow_but(LAYOUTS, "parquet"), indirect=True)
def test_the_evaluate_command_measures_as_on_the_folder(photos, tables, tmp_path):
    """On the fly, from the set that the corrupt command makes, and of a file of weights."""
    run_dir = tmp_path / "run"
    train(config_for([*OPTIONS, "--data.name", "hf", "--data.dir", str(tables)], run_dir))

    def measured(*arguments: str) -> dict:
        assert evaluate(["--run", str(run_dir), "--out", str(tmp_path / "e.json"), "--device", "cpu", *arguments]) == 0
        return json.loads((tmp_path / "e.json").read_text())

    results = json.loads((run_dir / "results.json").read_text())
    on_the_fly = measured()
    assert on_the_fly["subset"] == {"chosen": "by class", "of": 9, "seed": 0}
    on_folder = measured("--data.name", "folder", "--data.dir", str(photos))
    assert corrupt_command(corrupted(tables, tmp_path / "c")) == 0
    stored = measured("--corrupted", str(tmp_path / "c"))
    for other in (results, on_folder, stored):
        for key in ("clean_accuracy", "corruption_accuracy", "rms_calibration_error"):
            assert other[key] == on_the_fly[key]
    weights = [
        *("--weights", str(run_dir / "checkpoints" / "last.pt"), "--out", str(tmp_path / "w.json")),
        *OPTIONS[: OPTIONS.index("--method")],
        *(*OPTIONS[OPTIONS.index("--data.image_size") :], "--data.name", "hf", "--data.dir", str(tables)),
    ]
    assert evaluate(weights) == 0
    assert json.loads((tmp_path / "w.json").read_text())["corruption_accuracy"] == results["corruption_accuracy"]

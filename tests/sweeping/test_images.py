"""A sweep that goes on with another `--data.dir`: a data set of the user's own may have moved, or be another one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.errors import InputError
from fastmagn.runs.paths import CHECKPOINTS, CONFIG, RESULTS
from fastmagn.sweep import main
from fastmagn.sweeping import sweep
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.sweep import check_folder, is_finished
from fastmagn.train import train
from tests.helpers import smooth_network
from tests.helpers.run_folders import made_results
from tests.helpers.small_runs import knows_the_network

FIELDS = [
    *("--data.name", "npz", "--model.name", smooth_network.NAME, "--method", "standard", "--device", "cpu"),
    *("--train.amp", "float32", "--train.epochs", "1", "--train.batch_size", "16", "--data.image_size", "32"),
    *("--eval.num_images", "4", "--eval.corruption_set", "c15"),
]


def save(file: Path, of_training: int = 0, of_test: int = 1) -> Path:
    """32 training and 8 test images in two classes, drawn with these seeds."""
    arrays = {}
    for part, seed, number in (("train", of_training, 32), ("test", of_test, 8)):
        generator = np.random.default_rng(seed)
        arrays[f"{part}_images"] = generator.integers(0, 256, (number, 32, 32, 3), np.uint8)
        arrays[f"{part}_labels"] = np.arange(number) % 2
    file.parent.mkdir(exist_ok=True)
    np.savez(file, **arrays)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with images, `before/m.npz`, and a run on them, as a sweep's trial."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        knows_the_network(patch)
        train(config_of(folder, save(folder / "before" / "m.npz")))
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch) -> Path:
    """A copy of it at another place, whose results name the first one."""
    knows_the_network(monkeypatch)
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def config_of(folder: Path, images: Path) -> Config:
    run_dir = folder / "sweep" / "seed-0"
    return parse_config([*FIELDS, "--data.dir", str(images), "--run_dir", str(run_dir)], "test", "A test.")


def finished(config: Config) -> bool:
    return is_finished(Trial("seed-0", {}, config))


def drop_fingerprint(config: Config) -> None:
    """As results of an earlier version."""
    file = config.run_folder / RESULTS
    results = json.loads(file.read_text())
    del results["test_fingerprint"]
    file.write_text(json.dumps(results))


@pytest.mark.parametrize("lost", [None, RESULTS, CHECKPOINTS, "fingerprint"])
def test_a_data_set_that_moved_is_the_same(lost, folder):
    config = config_of(folder, folder / "before" / "m.npz")
    if lost == RESULTS:
        (config.run_folder / RESULTS).unlink()
    if lost == CHECKPOINTS:
        shutil.rmtree(config.run_folder / CHECKPOINTS)
    if lost == "fingerprint":
        drop_fingerprint(config)
    assert finished(config) == (lost != RESULTS)
    check_folder(config)


@pytest.mark.parametrize("has_results", [True, False])
def test_other_training_images_are_refused_and_the_folder_is_left_alone(has_results, folder, trained, monkeypatch):
    monkeypatch.setattr(sweep, "check_ray", lambda: None)
    other = save(folder / "other" / "m.npz", of_training=2)
    config = config_of(folder, other)
    if not has_results:
        (config.run_folder / RESULTS).unlink()
    before = (config.run_folder / CONFIG).read_text()
    assert not finished(config)
    with pytest.raises(InputError) as error:
        main([*FIELDS, "--grid", "train.seed=0", "--data.dir", str(other), "--out", str(folder / "sweep")])
    assert str(error.value) == (
        f"{config.run_folder}: has a run of other images: data.dir is {trained / 'before' / 'm.npz'} there and {other}"
        " here. Give the --data.dir that has its images, or name another --out."
    )
    assert (config.run_folder / CONFIG).read_text() == before
    assert not (folder / "sweep" / "sweep.yaml").exists()


def test_other_test_images_are_measured_again(folder):
    config = config_of(folder, save(folder / "other" / "m.npz", of_test=3))
    assert not finished(config)
    check_folder(config)


@pytest.mark.parametrize("of_test", [1, 3])
def test_results_of_what_may_be_other_images_are_not_replaced(of_test, folder):
    """Without a checkpoint the run would start from scratch; the results tell the test images at most."""
    config = config_of(folder, save(folder / "other" / "m.npz", of_test=of_test))
    shutil.rmtree(config.run_folder / CHECKPOINTS)
    if of_test == 1:
        drop_fingerprint(config)
    assert not finished(config)
    with pytest.raises(InputError, match="has results, and no checkpoint, of what may be other images: "):
        check_folder(config)


def test_the_place_of_a_published_set_does_not_count(tmp_path):
    """Nothing is read: neither folder is there."""
    config = parse_config(["--data.name", "cifar10", "--run_dir", str(tmp_path)], "test", "A test.")
    results = made_results(config)
    results["config"]["data"]["dir"] = "elsewhere"
    (tmp_path / RESULTS).write_text(json.dumps(results))
    assert finished(config)
    check_folder(config)


def test_images_that_are_missing_are_said_in_one_line(folder):
    config = config_of(folder, folder / "no.npz")
    with pytest.raises(InputError, match=r"data\.dir: .*no\.npz: no such file or folder; expected the images of npz"):
        finished(config)

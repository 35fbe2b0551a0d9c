"""What can be known to be wrong is said before the work: before images are read, a model is trained or measured."""

import json
import os
import re
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from _pytest.outcomes import Failed

import fastmagn.train as train_command
from fastmagn.config.schema import Config, DataConfig
from fastmagn.config.text import to_yaml
from fastmagn.data.present import check_present
from fastmagn.errors import InputError
from fastmagn.machine.files import check_writable
from fastmagn.training import run as training
from tests.config.test_command_line import main_of
from tests.helpers.small_runs import measures_little, small_default

# All that they read is missing: what is said about --out is said first.
WRITERS = {
    "evaluate": ("--logits", "none", "--out", "FILE/new/evaluation.json"),
    "report": ("none", "--out", "FILE/new/report"),
    "theory": ("none", "other", "--out", "FILE/new"),
    "export": ("--run", "none", "--format", "safetensors", "--out", "FILE/new/model.safetensors"),
    "corrupt": ("--dataset", "cifar10", "--data_dir", "none", "--out", "FILE/new/set"),
    "sweep": ("--grid", "train.seed=0,1", "--data.dir", "none", "--out", "FILE/new"),
}


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A file in the working directory, where the name of a folder is given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    return tmp_path / "FILE"


@pytest.mark.parametrize("command", WRITERS)
def test_an_output_that_cannot_be_written(command, file):
    with pytest.raises(InputError, match=rf"^out: .*FILE/new.* cannot be written: {file} is not a folder"):
        main_of(command)(list(WRITERS[command]))
    assert os.listdir(file.parent) == ["FILE"]


def test_a_folder_that_is_still_to_be_made(file, monkeypatch):
    check_writable(Path("new/folder/x"), Path("new/folder"))
    monkeypatch.setattr(os, "access", lambda path, mode: path != file.parent)  # root may write everywhere
    with pytest.raises(InputError, match=rf"^eval.cache_dir: new/a cannot be written: {file.parent} is read-only"):
        check_writable(Path("new/a"), Path("new/a"), "eval.cache_dir")


def a_set_of_other_images(folder: Path) -> None:
    """A -C set whose images have another size than the digits."""
    folder.mkdir()
    np.save(folder / "fog.npy", np.zeros((10, 48, 48, 3), np.uint8))
    np.save(folder / "labels.npy", np.zeros(2, np.int64))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_images", "600", r"^eval.num_images: got 600; expected 0..599, the test images there are\."),
        ("corrupted_dir", "none", r"^none: cannot be read \(No such file or directory\); a -C set holds"),
        ("corrupted_dir", "other", r"^other/fog.npy: got uint8 \[10, 48, 48, 3\]; expected uint8 \[5\*N, 32, 32, 3\]"),
        ("cache_dir", "FILE/cache", r"^eval.cache_dir: FILE/cache cannot be written: .*FILE is not a folder"),
    ],
)
def test_an_evaluation_that_could_not_be_made_ends_a_run_before_it_trains(field, value, said, file, monkeypatch):
    monkeypatch.setattr(training, "train_all", lambda *_: pytest.fail("it has trained"))
    a_set_of_other_images(file.with_name("other"))
    with pytest.raises(InputError, match=said):
        training.train(small_default(Path("run"), f"--eval.{field}", value))


def test_a_read_only_cache_ends_no_run(file, monkeypatch):
    """It may hold the set, for all users."""
    monkeypatch.setattr(training, "train_all", lambda *_: pytest.fail("it has trained"))
    cache, access = file.with_name("cache"), os.access
    cache.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != cache and access(path, mode))
    with pytest.raises(Failed, match="it has trained"):
        training.train(small_default(Path("run"), "--eval.cache_dir", str(cache)))


def test_logits_without_room_end_a_run_before_it_trains(file, monkeypatch):
    """599 images of 10 classes in 76 cells."""
    monkeypatch.setattr(training, "train_all", lambda *_: pytest.fail("it has trained"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1_000_000))
    with pytest.raises(InputError) as caught:
        training.train(small_default(Path("run"), "--eval.num_images", "0", "--eval.save_logits", "true"))
    assert str(caught.value) == (
        "eval.save_logits: the logits cannot be stored in run/logits (it needs 1.8 MB, and the disk has 1.0 MB). Make"
        " room, or leave eval.save_logits off."
    )
    with pytest.raises(Failed, match="it has trained"):
        training.train(small_default(Path("run"), "--eval.num_images", "0"))


@pytest.mark.parametrize("is_measured", [False, True])
def test_logits_need_room_where_they_will_be(is_measured, file, monkeypatch):
    """A link to logits of an earlier training is put aside; a link to an empty folder stays."""
    monkeypatch.setattr(training, "train_all", lambda *_: pytest.fail("it has trained"))
    Path("run").mkdir()
    Path("disk/elsewhere").mkdir(parents=True)
    if is_measured:
        Path("disk/elsewhere/labels.npy").write_text("")
    Path("run/logits").symlink_to(Path("disk/elsewhere").resolve())
    full = Path("run" if is_measured else "disk").resolve()
    usage = namedtuple("Usage", "free")

    def disk_usage(path):
        return usage(1000 if Path(path).resolve() == full else 2**40)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    with pytest.raises(InputError, match=r"^eval\.save_logits: the logits cannot be stored in run/logits "):
        training.train(small_default(Path("run"), "--eval.save_logits", "true"))


def test_a_run_that_does_not_begin_to_train_leaves_the_results_of_the_one_before(
    file, monkeypatch, undisturbed_default
):
    shutil.copytree(undisturbed_default, "run")
    shutil.rmtree("run/checkpoints")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    with pytest.raises(InputError, match=r"^eval\.save_logits: the logits cannot be stored in run/logits "):
        training.train(small_default(Path("run"), "--eval.save_logits", "true"))
    assert Path("run/results.json").read_bytes() == (undisturbed_default / "results.json").read_bytes()
    assert not list(Path("run").glob("*.before"))


def test_a_finished_run_needs_no_room_for_the_logits_that_it_has(file, monkeypatch, undisturbed_default, capsys):
    measures_little(monkeypatch)
    shutil.copytree(undisturbed_default, "run")
    config = small_default(Path("run"), "--eval.save_logits", "true")
    training.train(config)
    assert "finished" not in capsys.readouterr().out
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1000))
    training.train(config)
    assert "run is finished" in capsys.readouterr().out


def test_a_sweep_whose_report_would_be_refused(file):
    report = file.with_name("sweep") / "report"
    report.mkdir(parents=True)
    (report / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"^out: .*sweep/report is not empty, and it holds no older report"):
        main_of("sweep")(["--grid", "train.seed=0,1", "--data.dir", "none", "--out", "sweep"])


REPLACED = (
    "augment.patch_probability: got 1.0, the default, in place of which Gaussian noise sets 0.5; expected another"
    " value. To train with 1.0, use --method standard and give the fields that you want."
)


def test_a_given_default_that_the_method_replaces(file, monkeypatch):
    monkeypatch.setattr(train_command, "train", lambda *_: pytest.fail("it trains"))
    for given in (["--augment.patch_probability", "1"], ["--augment.patch_probability=1.0"]):
        with pytest.raises(InputError, match=f"^{re.escape(REPLACED)}$"):
            main_of("train")(["--method", "gaussian_noise", *given])
    said = r"^augment.policy: got none, the default, in place of which TrivialAugment sets trivialaugment;"
    with pytest.raises(InputError, match=said):
        main_of("train")(["--augment.policy", "none", "--method", "trivialaugment"])
    for kept in (
        ["--method", "gaussian_noise", "--augment.patch_probability", "0.5"],
        ["--method", "standard", "--augment.patch_probability", "1", "--augment.patch_gaussian", "0.2"],
    ):
        with pytest.raises(Failed, match="it trains"):
            main_of("train")(kept)


def test_a_sweep_with_a_given_default_that_the_method_replaces(file):
    pytest.importorskip("ray", reason="needs the extra ray")
    grid = ["--out", "sweep", "--grid", "augment.patch_probability=0.25,0.5,1"]
    with pytest.raises(InputError, match=f"^{re.escape(REPLACED)}$"):
        main_of("sweep")([*grid, "--method", "gaussian_noise"])
    with pytest.raises(InputError, match=f"^{re.escape(REPLACED)}$"):
        main_of("sweep")([*grid, "--grid", "method=standard,gaussian_noise"])
    assert os.listdir(file.parent) == ["FILE"]


def test_a_field_that_only_other_trials_or_a_file_give_is_not_given(file, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray")
    from fastmagn.sweeping import sweep  # here, as it imports Ray

    monkeypatch.setattr(sweep, "run_unfinished", lambda *_: pytest.fail("it trains"))
    trials = [{"method": "trivialaugment"}, {"method": "standard", "augment.policy": "randaugment"}]
    for name, fields in (("one", {}), ("two", {"augment.policy": "none"})):
        file.with_name(f"{name}.yaml").write_text(json.dumps({"fields": fields, "trials": trials}))
        with pytest.raises(Failed, match="it trains"):
            main_of("sweep")(["--config", f"{name}.yaml", "--out", name])


def test_a_sweep_without_its_images_starts_no_trial(file, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray")
    from fastmagn.sweeping import sweep  # here, as it imports Ray

    monkeypatch.setattr(sweep, "run_trials", lambda *_: pytest.fail("trials have started"))
    arguments = ["--grid", "train.seed=0,1", "--out", "sweep", "--data.dir", "none"]
    with pytest.raises(InputError, match=r"^data.dir: none: no such file or folder; expected the images of cifar10"):
        main_of("sweep")([*arguments, "--data.name", "cifar10"])


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_images_that_are_not_there(command, file, monkeypatch):
    """Before PyTorch is imported."""
    monkeypatch.setitem(sys.modules, "torch", None)
    named = ["--weights", "w.pth"] if command == "evaluate" else []
    with pytest.raises(InputError) as caught:
        main_of(command)([*named, "--data.name", "cifar10", "--data.dir", "none"])
    assert str(caught.value) == (
        "data.dir: none: no such file or folder; expected the images of cifar10 there. Name another --data.dir, fetch"
        " them with --data.download true, or use --data.name digits, which needs no files."
    )


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("folder", "the images of folder there: DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE. Name another"),
        (
            "webdataset",
            "there: DIR/train-000.tar, ... and DIR/val-000.tar, ..., with KEY.jpg and KEY.cls (or KEY.json)",
        ),
        ("hf", "there: DIR/data/train-00000-of-00001.parquet and so on, or what save_to_disk wrote. Name another"),
        ("hf", "fetch a set of the hub, whose name --data.dir is, with --data.download true, or use"),
        ("npz", "there: FILE.npz (or its folder) with train_images, train_labels, test_images and test_labels. Name"),
        ("torchvision:SVHN", "there, as torchvision.datasets.SVHN(root=DIR) stores them. Name another --data.dir, or"),
        ("torchvision:EMNIST-letters", "there, as torchvision.datasets.EMNIST(root=DIR) stores them. Name another"),
    ],
)
def test_what_a_right_folder_looks_like(name, layout, file):
    with pytest.raises(InputError) as caught:
        check_present(DataConfig(name=name, dir=Path("none")))
    assert str(caught.value).startswith(f"data.dir: none: no such file or folder; expected the images of {name} there")
    assert layout in str(caught.value)


def test_images_of_which_no_folder_is_expected(file):
    check_present(DataConfig(dir=Path("none")))  # the digits
    check_present(DataConfig(name="cifar10", dir=file.parent))
    check_present(DataConfig(name="hf", dir=Path("owner/name"), download=True))
    check_present(DataConfig(name="unknown", dir=Path("none")))  # its own message comes later


@pytest.mark.parametrize(
    ("of_run", "given", "remedy"),
    [
        (
            "my photos",
            None,
            "Give --data.dir (the run's own, my photos, is relative to the folder where it was trained).",
        ),
        ("/my photos", None, "Give --data.dir (the run's own, /my photos, is not on this machine)."),
        ("my photos", "other", "Name another --data.dir."),
    ],
)
def test_the_images_of_a_run_are_not_here(of_run, given, remedy, file):
    """The digits are not named: measured on them, the numbers would not be the run's."""
    Path("run").mkdir()
    Path("run/config.yaml").write_text(to_yaml(Config(data=DataConfig(name="folder", dir=Path(of_run)))))
    with pytest.raises(InputError) as caught:
        main_of("evaluate")(["--run", "run", *([] if given is None else ["--data.dir", given])])
    assert str(caught.value) == (
        f"data.dir: {given or of_run}: no such file or folder; expected the images of folder there:"
        f" DIR/train/CLASS/IMAGE and DIR/val/CLASS/IMAGE. {remedy}"
    )


def test_weights_are_read_before_the_images(file):
    named = ["--weights", "none.pth", "--data.name", "cifar10", "--data.dir", "."]
    with pytest.raises(InputError, match=r"^weights: none.pth: no such file"):
        main_of("evaluate")(named)

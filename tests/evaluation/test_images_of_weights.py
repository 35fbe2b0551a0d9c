"""evaluate --weights W --images DIR: the numbers of the run that the weights are of, beside the weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluate import main
from fastmagn.evaluation.other_images import image_folders_of, with_image_folders
from fastmagn.export import main as export
from fastmagn.machine.files import write_json
from tests.helpers.photo_folders import enlarged
from tests.helpers.run_folders import CLASS_NAMES, MEAN, STD, made_results, make_run
from tests.helpers.small_runs import measures_little

NUMBERS = (
    "num_images",
    "num_classes",
    "num_unreadable",
    "all_classes",
    "own_classes",
    "num_bins",
    "binning",
    "classes",
)
GIVEN = ["--mean", *map(str, MEAN), "--std", *map(str, STD)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight digits each of three classes, at 90x70 px; one folder has another name than its class."""
    digits, root = load_images("digits", "data"), tmp_path_factory.mktemp("digits") / "images"
    for name, label in (("seven", 7), ("2", 2), ("4", 4)):
        (root / name).mkdir(parents=True)
        for i in np.flatnonzero(digits.test_labels == label)[:8]:
            Image.fromarray(enlarged(digits.test_images_u8[i], 90, 70, seed=i)).save(root / name / f"{i:04}.png")
    (root.parent / "classes.json").write_text('{"seven": "7"}')
    return root


def entry_of(folder: Path, *what: str, file: Path) -> dict:
    """What the command writes to `file` by default."""
    classes = folder.parent / "classes.json"
    assert main([*what, "--images", str(folder), "--classes", str(classes), "--device", "cpu"]) == 0
    return json.loads(file.read_text())["image_folders"][str(folder)]


def exported(run_dir: Path) -> Path:
    file = run_dir.parent / "model.safetensors"
    assert export(["--run", str(run_dir), "--format", "safetensors", "--out", str(file)]) == 0
    return file


SETTINGS = {
    "digits": ([], {}),
    "mirrored": (["--eval.test_time_flip", "true"], {}),
    "padded": (["--data.name", "torchvision:MNIST"], {"padded_from": [28, 28]}),
    "cut out": (
        *(["--data.name", "folder", "--data.image_size", "64", "--data.eval_resize_px", "70"],),
        *({"image_size": [64, 64]},),
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_numbers_are_those_of_the_run(name, folder, tmp_path):
    """Neither of them needs the images of the training, which are not there for most of these."""
    fields, about = SETTINGS[name]
    config, _ = make_run(tmp_path / "run", *fields, "--train.amp", "float32", "--data.dir", "gone", results=False)
    results = made_results(config, **about)
    write_json(tmp_path / "run" / "results.json", results)
    files = [tmp_path / "run" / "checkpoints" / "last.pt", exported(tmp_path / "run")]
    wanted = entry_of(folder, "--run", str(tmp_path / "run"), file=tmp_path / "run" / "evaluation.json")
    assert wanted["all_classes"] != wanted["own_classes"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for file in files:
        found = entry_of(folder, "--weights", str(file), file=file.with_name(f"{file.stem}.evaluation.json"))
        assert {name: found[name] for name in NUMBERS} == {name: wanted[name] for name in NUMBERS}
        assert found["test_time_flip"] == wanted["test_time_flip"] == (name == "mirrored")
        assert (found["weights_file"], len(found["weights_sha256"])) == (str(file), 64)
        assert found["normalisation"] == {"mean": pytest.approx(MEAN), "std": pytest.approx(STD)}
        assert "steps" not in found
    assert {path: path.read_bytes() for path in before} == before


def test_others_weights_have_the_classes_of_their_data_set(folder, tmp_path):
    _, model = make_run(tmp_path / "run", "--train.amp", "float32")
    wanted = entry_of(folder, "--run", str(tmp_path / "run"), file=tmp_path / "run" / "evaluation.json")
    torch.save(model.network.state_dict(), tmp_path / "others.pt")
    way = ["--weights", str(tmp_path / "others.pt"), "--model.name", "resnet_small"]
    found = entry_of(folder, *way, *GIVEN, "--data.name", "digits", file=tmp_path / "others.evaluation.json")
    assert {name: found[name] for name in NUMBERS} == {name: wanted[name] for name in NUMBERS}
    (tmp_path / "others.evaluation.json").unlink()
    with pytest.raises(InputError, match=r"^data\.dir: .*none/cifar-10-batches-py; missing"):
        main([*way, "--images", str(folder), "--data.name", "cifar10", "--data.dir", str(tmp_path / "none")])
    with pytest.raises(InputError, match=r"3 class folders do not match any of the model's 10 classes: seven"):
        main([*way, "--images", str(folder), "--device", "cpu"])
    assert not (tmp_path / "others.evaluation.json").exists()


def test_entries_stay_until_the_file_is_another(folder, tmp_path, monkeypatch, capsys):
    measures_little(monkeypatch)
    make_run(tmp_path / "one", "--train.amp", "float32")
    file, out = exported(tmp_path / "one"), tmp_path / "model.evaluation.json"
    entry = entry_of(folder, "--weights", str(file), file=out)
    plain = ["--weights", str(file), "--device", "cpu", "--eval.num_images", "4"]
    assert main(plain) == 0
    results = json.loads(out.read_text())
    assert (results["image_folders"], results["num_images"]) == ({str(folder): entry}, 4)
    assert entry_of(folder, "--weights", str(file), file=out)["all_classes"] == entry["all_classes"]
    assert json.loads(out.read_text())["clean_accuracy"] == results["clean_accuracy"]
    make_run(tmp_path / "two", "--eval.weights", "ema", "--train.ema_decay", "0.9", "--train.amp", "float32")
    file.unlink()
    shutil.move(exported(tmp_path / "two"), file)
    capsys.readouterr()
    other = shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "classes.json").write_text('{"seven": "7"}')
    entry_of(other, "--weights", str(file), file=out)
    assert json.loads(out.read_text()).keys() == {"image_folders"}
    assert json.loads(out.read_text())["image_folders"].keys() == {str(other)}
    printed = " ".join(capsys.readouterr().out.split())
    assert "its other results are of other weights. They are left out." in printed
    assert f"image_folders has numbers of other weights: {folder}. They are left out." in printed


@pytest.mark.parametrize(("first", "second"), [("steps", "weights_sha256"), ("weights_sha256", "steps")])
def test_a_run_and_a_file_of_weights_are_two_models(first, second, tmp_path, capsys):
    out, entries = tmp_path / "evaluation.json", {"b": {second: 2}}
    write_json(out, {first: 1, "clean_accuracy": 0.5, "image_folders": {"a": {first: 1}}})
    assert image_folders_of(out, (second, 2)) == {}
    assert with_image_folders(out, entries, (second, 2)) == {"image_folders": entries}
    assert "its other results are of other weights. They are left out." in " ".join(capsys.readouterr().out.split())


def test_a_published_model_by_its_name(folder, tmp_path, monkeypatch):
    """CIFAR's images are not needed: the file says the names of the classes."""
    monkeypatch.chdir(tmp_path)
    classes = dict(zip(("2", "4", "seven"), ("bird", "deer", "horse"), strict=True))
    (tmp_path / "classes.json").write_text(json.dumps(classes))
    way = ["--weights", "cifar10-small-standard", "--images", str(folder), "--classes", "classes.json"]
    assert main([*way, "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "cifar10-small-standard.evaluation.json").read_text())["image_folders"]
    assert (found[str(folder)]["num_images"], found[str(folder)]["weights_file"]) == (24, "cifar10-small-standard")
    assert set(CLASS_NAMES).isdisjoint(classes.values())

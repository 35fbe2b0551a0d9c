"""evaluate --weights: other people's weights measured without a run, as the same network measured by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastmagn import evaluate_robustness
from fastmagn.config.schema import DataConfig
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluate import main, parse_arguments
from fastmagn.evaluation.published import Published, evaluate_weights
from fastmagn.evaluation.trained import load_run
from fastmagn.export import main as export
from fastmagn.machine.files import write_json
from fastmagn.models import build_model
from fastmagn.models.pretrained import load_pretrained
from tests.helpers.foreign_networks import Standardised, trained_like
from tests.helpers.run_folders import CLASS_NAMES, made_results, make_run

FEW = ["--data.name", "digits", "--eval.num_images", "12", "--eval.corruption_set", "c15", "--device", "cpu"]


@pytest.fixture(scope="module")
def network():
    """resnet_small, so that it is quick; its file has other names."""
    return trained_like(build_model("resnet_small", num_classes=10, mean=(0.0,) * 3, std=(1.0,) * 3).network)


@pytest.fixture
def file(network, tmp_path):
    path = tmp_path / "wrn.pth"
    state = {f"module.{name.replace('stem', 'conv1')}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 9, "model": "wrn", "state_dict": state}, path)
    return path


def by_hand(model, mean: tuple, std: tuple) -> dict:
    """The same measures of the network itself, normalised here."""
    digits = load_images("digits", "data")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    return evaluate_robustness(
        model,
        np.asarray(digits.test_images_u8)[:12],
        digits.test_labels[:12],
        preprocess=lambda images: (images - mean) / std,
    )


def check_same(file, results: dict, wanted: dict) -> None:
    assert results == json.loads(file.with_name(f"{file.stem}.evaluation.json").read_text())
    for name in ("clean_accuracy", "corruption_accuracy", "num_images"):
        assert results[name] == wanted[name]
    assert results["mca"]["c15"] == pytest.approx(wanted["mca"]["c15"])
    for name in ("clean", "corrupt"):
        error = results["rms_calibration_error"][name]
        assert error == pytest.approx(wanted["rms_calibration_error"][name], abs=1e-5)


def evaluated(file, *arguments: str) -> dict:
    assert main(["--weights", str(file), *FEW, *arguments]) == 0
    return json.loads(file.with_name(f"{file.stem}.evaluation.json").read_text())


def test_a_published_checkpoint_with_its_normalisation(network, file, capsys):
    results = evaluated(file, "--model.name", "resnet_small", "--mean", "0.5", "--std", "0.5")
    shown = capsys.readouterr().out
    assert f"weights from {file}: " in shown
    assert "by their order, as the names differ (conv1.0.weight is stem.0.weight here)" in shown
    assert "normalisation: mean 0.5 0.5 0.5, std 0.5 0.5 0.5 (as given)" in shown
    assert "clean accuracy" in shown
    check_same(file, results, by_hand(network, (0.5,) * 3, (0.5,) * 3))
    assert results["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert results["weights_file"] == str(file)
    assert results["config"]["model"]["name"] == "resnet_small"
    assert results["config"]["method"] == "wrn"


def test_results_name_the_file_from_everywhere(file, tmp_path, monkeypatch):
    """Nothing is measured here. The name of a published model is stored as it is."""
    monkeypatch.setattr("fastmagn.evaluation.published.evaluate_model", lambda *_, **__: {})
    monkeypatch.setattr("fastmagn.evaluation.shown.print_results", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    assert main(["--weights", file.name, *FEW, "--model.name", "resnet_small"]) == 0
    assert json.loads((tmp_path / "wrn.evaluation.json").read_text())["weights_file"] == str(file)
    named = ["--weights", "cifar10-small-magn_augmix", *FEW, "--out", "named.json"]
    monkeypatch.setattr("fastmagn.evaluation.published.check_classes", lambda *_: None)
    assert main(named) == 0
    assert json.loads((tmp_path / "named.json").read_text())["weights_file"] == "cifar10-small-magn_augmix"


def test_without_a_normalisation_the_data_sets_own_and_a_line_says_so(network, file, capsys):
    digits = load_images("digits", "data")
    results = evaluated(file, "--model.name", "resnet_small")
    shown = capsys.readouterr().out
    assert "(those of digits; --mean and --std name others)" in shown
    check_same(file, results, by_hand(network, digits.mean, digits.std))


@pytest.mark.parametrize("stem", ["mine", "null", "a: b", "1e3", "x" * 90 + " # y"])
def test_a_file_overrides_what_weights_bring_and_an_option_the_file(stem, tmp_path):
    (tmp_path / "a.yaml").write_text("train: {amp: bf16}\ndevice: cpu\n")
    weights, file = ["--weights", str(tmp_path / f"{stem}.pt")], ["--config", str(tmp_path / "a.yaml")]
    found = [parse_arguments([*weights, *more])[1] for more in ([], file, ["--train.amp", "fp16", *file])]
    assert [config.train.amp for config in found] == ["float32", "bf16", "fp16"]
    assert {config.method for config in found} == {stem}


def test_a_line_reminds_of_torchvisions_transform_input(tmp_path, monkeypatch, capsys):
    """The measuring is left out; how such weights are measured right, tests/models/test_torchvision.py says."""
    monkeypatch.setattr("fastmagn.evaluation.published.evaluate_model", lambda *_, **__: {})
    name, path = "torchvision:googlenet", tmp_path / "a.pt"
    torch.save(build_model(name, num_classes=10, mean=(0.0,) * 3, std=(1.0,) * 3).network.state_dict(), path)
    config = parse_arguments(["--weights", str(path), *FEW, "--model.name", name])[1]
    reminder = f"warning: torchvision's own weights of {name} need --mean 0.5 --std 0.5 (transform_input)."
    evaluate_weights(Published(path), config, tmp_path)
    assert reminder in capsys.readouterr().out
    evaluate_weights(Published(path, (0.5,) * 3, (0.5,) * 3), config, tmp_path)
    assert "transform_input" not in capsys.readouterr().out


def test_three_numbers_and_a_mirror_image(network, file, capsys):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    arguments = ["--mean", *map(str, mean), "--std", *map(str, std), "--eval.test_time_flip", "true"]
    results = evaluated(file, "--model.name", "resnet_small", *arguments)

    class Mirrored(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images):
            return (self.network(images) + self.network(images.flip(-1))) / 2

    check_same(file, results, by_hand(Mirrored().eval(), mean, std))


def test_the_files_own_normalisation(network, tmp_path, capsys):
    mean, std = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)
    path = tmp_path / "whole.pt"
    torch.save(Standardised(network, mean, std).state_dict(), path)
    results = evaluated(path, "--model.name", "resnet_small")
    assert "normalisation: mean 0.3 0.4 0.5, std 0.2 0.25 0.3 (the file's)" in capsys.readouterr().out
    check_same(path, results, by_hand(network, mean, std))


def test_logits_and_another_results_file(file, tmp_path, capsys):
    out = tmp_path / "there" / "wrn.json"
    out.parent.mkdir()
    arguments = ["--weights", str(file), *FEW, "--model.name", "resnet_small", "--out", str(out), "--save_logits"]
    assert main(arguments) == 0
    assert np.load(tmp_path / "there" / "wrn" / "logits" / "clean.npy").shape == (1, 12, 10)
    assert not file.with_name("wrn.evaluation.json").exists()


def test_a_report_shows_it(file, tmp_path, capsys):
    from fastmagn.report import main as report

    evaluated(file, "--model.name", "resnet_small", "--mean", "0.5", "--std", "0.5")
    assert report([str(file.with_name("wrn.evaluation.json")), "--out", str(tmp_path / "report")]) == 0
    assert "wrn" in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--mean", "125"],
            "mean: got 125; expected one number, or three for R, G and B, for pixels in [0, 1] (0..",
        ),
        (["--mean", "0.5", "0.5"], "mean: got 0.5 0.5; expected one number, or three"),
        (["--std", "0"], "std: got 0; expected one number, or three for R, G and B, for pixels in [0, 1] (above 0, up"),
        (["--std", "half"], "std: got 'half'; expected a number."),
        (["--std"], "std: got no value; expected a number."),
        (["--mean", "nan"], "mean: got nan; expected"),
    ],
)
def test_a_normalisation_that_is_none(arguments, line):
    with pytest.raises(InputError) as error:
        parse_arguments(["--weights", "a.pt", *arguments])
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--weights", ""], "weights: got '.'; expected a file of weights, or a published model's name."),
        (["--weights", "."], "weights: got '.'; expected a file of weights, or a published model's name."),
        (["--run", "r", "--mean", "0.5"], "mean: got 0.5; expected none without --weights FILE."),
        (["--run", "r", "--weights", "a.pt"], "argument --weights: not allowed with argument --run/--run_dir"),
        (["--weights", "a.pt", "--out", "."], "out: . is a folder; expected the name of a results file."),
        (
            ["--weights", "a.pt", "--images", "d", "--save_logits"],
            "images: got d; expected it with --run or --weights, without --corrupted, --save_logits",
        ),
        (["--logits", "l", "--images", "d"], "images: got d; expected it with --run or --weights, without"),
        (
            ["--weights", "a.pt", "--images", "d", "--eval.weights", "last"],
            "images: got eval.weights with --images, which does not use it; expected of that section only"
            " eval.batch_size, eval.test_time_flip, eval.num_bins, eval.binning, eval.forward. Leave it out.",
        ),
        (
            ["--weights", "a.pt", "--eval.weights", "last", "--eval.rse_draws", "3"],
            "weights: got eval.weights, eval.rse_draws with --weights, which does not use it; expected no field of a"
            " run's own. Leave it out.",
        ),
    ],
)
def test_options_that_exclude_each_other(arguments, line):
    with pytest.raises(InputError) as error:
        parse_arguments(arguments)
    assert str(error.value).startswith(line)


def test_weights_of_another_network_or_of_other_classes(file, tmp_path):
    with pytest.raises(InputError, match=r"^weights: .*wrn\.pth has names that the network lacks: "):
        evaluated(file, "--model.name", "resnet18")
    other = build_model("resnet_small", num_classes=7, mean=(0.0,) * 3, std=(1.0,) * 3)
    torch.save(other.state_dict(), tmp_path / "seven.pt")
    with pytest.raises(InputError) as error:
        evaluated(tmp_path / "seven.pt", "--model.name", "resnet_small")
    assert "has no classifier for the 10 classes of digits: head.weight, head.bias would be new." in str(error.value)
    with pytest.raises(InputError, match=r"^weights: .*nothing\.pt: no such file"):
        evaluated(tmp_path / "nothing.pt", "--model.name", "resnet18")
    assert list(tmp_path.glob("*.json")) == []


def exported(folder, class_names: tuple[str, ...] = CLASS_NAMES):
    """A file of `fastmagn.export`: resnet_small of photographs of 64 px, the shorter side resized to 70 px."""
    fields = ("--data.name", "folder", "--data.image_size", "64", "--data.eval_resize_px", "70")
    config, _ = make_run(folder / "run", *fields, "--model.name", "resnet_small_deep", results=False)
    write_json(folder / "run" / "results.json", made_results(config, image_size=[64, 64], class_names=class_names))
    file = folder / "mine.safetensors"
    assert export(["--run", str(folder / "run"), "--format", "safetensors", "--out", str(file)]) == 0
    return file


def test_an_exported_file_says_its_images_and_its_network(tmp_path):
    named = ["--weights", str(exported(tmp_path))]
    config = parse_arguments(named)[1]
    assert (config.data.name, config.data.image_size, config.data.eval_resize_px) == ("folder", 64, 70)
    assert (config.model.name, config.method, config.train.amp) == ("resnet_small_deep", "mine", "float32")
    other = parse_arguments([*named, "--data.image_size", "32", "--data.name", "hf", "--model.name", "resnet18"])[1]
    assert (other.data.name, other.data.image_size, other.data.eval_resize_px) == ("hf", 32, 0)
    assert other.model.name == "resnet18"
    (tmp_path / "own.yaml").write_text("data: {name: digits, image_size: 224}")
    assert parse_arguments([*named, "--config", str(tmp_path / "own.yaml")])[1].data == DataConfig()
    published = parse_arguments(["--weights", "cifar10-small-magn_augmix"])[1]
    assert (published.data.name, published.model.name) == ("cifar10", "resnet_small")
    with pytest.raises(InputError, match=r"^data\.dir: none: no such .* there: DIR/.*Name another --data\.dir\.$"):
        main([*named, "--data.dir", "none"])


def test_an_exported_file_says_whether_it_averages_mirror_images(tmp_path):
    for folder, flips in (("plain", False), ("flip", True)):
        make_run(tmp_path / folder, "--eval.test_time_flip", str(flips).lower())
        file = tmp_path / f"{folder}.safetensors"
        assert export(["--run", str(tmp_path / folder), "--format", "safetensors", "--out", str(file)]) == 0
        for weights in (file, tmp_path / folder / "checkpoints" / "last.pt"):
            for more, wanted in (
                ([], flips),
                (["--data.name", "cifar100"], flips),
                (["--eval.test_time_flip", "false"], False),
            ):
                assert parse_arguments(["--weights", str(weights), *more])[1].eval.test_time_flip is wanted


def test_an_ensembles_file_is_measured_as_its_network_and_a_line_says_so(tmp_path, monkeypatch, capsys):
    """The measuring itself is left out: the model that would be measured is compared."""
    make_run(tmp_path / "run", "--method", "rse", "--eval.rse_draws", "2")
    file, given = tmp_path / "rse.safetensors", load_run(tmp_path / "run").network.state_dict()
    assert export(["--run", str(tmp_path / "run"), "--format", "safetensors", "--out", str(file)]) == 0
    found = []
    monkeypatch.setattr(
        "fastmagn.evaluation.published.evaluate_model", lambda model, *_, **__: found.append(model) or {}
    )
    monkeypatch.setattr("fastmagn.evaluation.shown.print_results", lambda *_, **__: None)
    assert main(["--weights", str(file), "--device", "cpu"]) == 0
    assert "; without the noises of its ensemble: this is the network alone; new for 10 classes: none" in (
        capsys.readouterr().out
    )
    network = build_model("resnet_small", num_classes=10, mean=(0.0,) * 3, std=(1.0,) * 3).network
    assert "; without the noises" in load_pretrained(network, file, 10)
    loaded = {f"network.{name}": value for name, value in network.state_dict().items()}
    for state in (found[0].state_dict(), given | loaded):
        assert state.keys() == given.keys()
        assert all(torch.equal(value, given[name]) for name, value in state.items())


def test_a_checkpoint_in_its_run_folder_is_measured_on_the_runs_images_with_its_network(tmp_path, monkeypatch):
    fields = {"name": "webdataset", "dir": Path("photos"), "image_size": 64, "eval_resize_px": 70}
    fields |= {"test_shards": "special-*.tar", "label_column": "fine"}
    words = [word for name, value in fields.items() for word in (f"--data.{name}", str(value))]
    make_run(tmp_path / "run", *words, "--model.name", "resnet_small_deep", results=False)
    checkpoints = tmp_path / "run" / "checkpoints"
    older = shutil.copy(checkpoints / "last.pt", checkpoints / "step-00000001.pt")
    monkeypatch.chdir(checkpoints)
    for file in (checkpoints / "last.pt", older, Path("last.pt")):
        config = parse_arguments(["--weights", str(file)])[1]
        assert config.data == DataConfig(**fields)
        assert (config.model.name, config.method, config.train.amp) == ("resnet_small_deep", file.stem, "float32")
    other = parse_arguments(["--weights", str(older), "--data.name", "digits"])[1]
    assert (other.data, other.model.name) == (DataConfig(), "resnet_small_deep")
    assert parse_arguments(["--weights", str(older), "--model.name", "resnet18"])[1].model.name == "resnet18"
    for elsewhere in (tmp_path / "last.pt", checkpoints / "best.pt"):
        shutil.copy(older, elsewhere)
        assert parse_arguments(["--weights", str(elsewhere)])[1].data == DataConfig()
    with pytest.raises(InputError) as error:
        main(["--weights", str(older)])
    assert "Give --data.dir (the run's own, photos, is relative to the folder where it was trained)" in str(error.value)
    assert "digits" not in str(error.value)


@pytest.mark.parametrize("name", ["last.pt", "model.pth"])
def test_another_programs_configuration_beside_a_checkpoint_is_not_read(name, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("model: {arch: resnet50, depth: 50}")
    (tmp_path / "checkpoints" / name).touch()
    given = ["--model.name", "resnet50", "--data.name", "cifar100"]
    config = parse_arguments(["--weights", str(tmp_path / "checkpoints" / name), *given])[1]
    assert (config.model.name, config.data.name) == ("resnet50", "cifar100")


def test_an_exported_file_is_measured_on_its_classes_only(tmp_path, monkeypatch, capsys):
    """The measuring is left out. Digits of 32 px have the classes 0 to 9."""
    monkeypatch.setattr("fastmagn.evaluation.published.evaluate_model", lambda *_, **__: {})
    monkeypatch.setattr("fastmagn.evaluation.shown.print_results", lambda *_, **__: None)
    few = ["--data.name", "digits", "--device", "cpu"]
    assert main(["--weights", str(exported(tmp_path)), *few]) == 0
    line = "mine.safetensors was trained on images of 64x64 px; it is measured on 32x32 px."
    assert line in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run")
    file = exported(tmp_path, (*CLASS_NAMES[:-1], "nine"))
    with pytest.raises(InputError) as error:
        main(["--weights", str(file), *few])
    assert str(error.value) == (
        f"data.name: got digits, whose class 9 is '9'; expected 'nine', as in {file}. Name the images that it was"
        " trained for (--data.name folder), or other images of the same classes under the same names."
    )

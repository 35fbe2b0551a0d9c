"""Evaluation against plain loops over images, and the evaluate command."""

import json
import math
import os
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

import fastmagn.evaluation.cells as cells
import fastmagn.evaluation.corruption_cache as corruption_cache
import fastmagn.evaluation.measure as measure
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, corrupt
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluate import main, parse_arguments
from fastmagn.evaluation.logits import read_logits
from fastmagn.evaluation.measure import evaluate
from fastmagn.machine.processes import World
from fastmagn.training.run import train
from tests.helpers.small_runs import config_for

CPU = torch.device("cpu")
SMALL = EvalConfig(num_images=23, batch_size=7, num_bins=4)


class MeanColour(nn.Module):
    """Logits that any loop can repeat: from the mean of each quarter of the image."""

    def forward(self, images):
        quarters = [images[:, 0, :16, :16], images[:, 0, :16, 16:], images[:, 0, 16:, :16], images[:, 0, 16:, 16:]]
        means = torch.stack([quarter.mean(dim=(1, 2)) for quarter in quarters], dim=1)
        return 9 * torch.cat([means, 1 - means, means[:, :2] * 2], dim=1)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "data")


@pytest.fixture(scope="module")
def measured(digits):
    return evaluate(MeanColour(), digits.test_images_u8, digits.test_labels, SMALL, device=CPU)


def plain_prediction(image_u8: np.ndarray) -> tuple[int, float]:
    """Class and confidence of one image, in float64."""
    image = image_u8[:, :, 0].astype(np.float64) / 255
    means = [image[:16, :16].mean(), image[:16, 16:].mean(), image[16:, :16].mean(), image[16:, 16:].mean()]
    logits = [9 * value for value in [*means, *(1 - mean for mean in means), 2 * means[0], 2 * means[1]]]
    exponentials = [math.exp(value) for value in logits]
    best = max(range(10), key=lambda k: logits[k])
    return best, exponentials[best] / sum(exponentials)


def plain_rms(outcomes: list[tuple[bool, float]], num_bins: int) -> float:
    """E_c of the paper's section 4, bin by bin."""
    total = 0.0
    for i in range(num_bins):
        low, high = i / num_bins, (i + 1) / num_bins
        members = [o for o in outcomes if low <= o[1] < high or (i == num_bins - 1 and o[1] == 1)]
        if members:
            accuracy = sum(right for right, _ in members) / len(members)
            confidence = sum(c for _, c in members) / len(members)
            total += len(members) / len(outcomes) * (accuracy - confidence) ** 2
    return math.sqrt(total)


def outcomes_of(images_u8: np.ndarray, labels: np.ndarray) -> list[tuple[bool, float]]:
    predictions = [plain_prediction(image) for image in images_u8]
    return [(best == label, confidence) for (best, confidence), label in zip(predictions, labels, strict=True)]


def test_accuracies_mca_and_calibration_equal_plain_loops(digits, measured):
    images, labels = digits.test_images_u8[:23], digits.test_labels[:23]
    clean = outcomes_of(images, labels)
    assert measured["clean_accuracy"] == pytest.approx(sum(right for right, _ in clean) / 23)
    assert measured["rms_calibration_error"]["clean"] == pytest.approx(plain_rms(clean, 4), abs=1e-6)
    pooled, means = [], []
    for name in CORRUPTION_SETS["c18"]:
        cells = []
        for severity in range(1, 6):
            outcomes = outcomes_of(corrupt(images, name, severity, seed=0), labels)
            cells.append(sum(right for right, _ in outcomes) / 23)
            pooled += outcomes
        assert measured["corruption_accuracy"][name] == pytest.approx(cells), name
        means.append(sum(cells) / 5)
    assert measured["mca"]["c18"] == pytest.approx(sum(means) / 18)
    assert measured["rms_calibration_error"]["corrupt"] == pytest.approx(plain_rms(pooled, 4), abs=1e-6)
    assert measured["rms_calibration_error"]["corruption_set"] == "c18"


def test_results_are_strict_json(measured):
    json.dumps(measured, allow_nan=False)


def test_batch_size_changes_nothing(digits, measured):
    other = EvalConfig(num_images=23, batch_size=1000, num_bins=4)
    again = evaluate(MeanColour(), digits.test_images_u8, digits.test_labels, other, device=CPU)
    assert again["corruption_accuracy"] == measured["corruption_accuracy"]


def test_a_stored_set_gives_what_the_fly_gives(digits, measured, tmp_path):
    images, labels = digits.test_images_u8[:23], digits.test_labels[:23]
    for name in CORRUPTION_SETS["c19"]:
        np.save(tmp_path / f"{name}.npy", np.concatenate([corrupt(images, name, s, seed=0) for s in range(1, 6)]))
    np.save(tmp_path / "labels.npy", np.tile(labels, 5))
    stored = EvalConfig(num_images=23, batch_size=7, num_bins=4, corrupted_dir=tmp_path)
    read = evaluate(MeanColour(), digits.test_images_u8, digits.test_labels, stored, device=CPU)
    assert read == measured | {"corrupted_as": None}  # as of a published set, nobody says how it was made
    np.save(tmp_path / "labels.npy", labels[::-1])
    with pytest.raises(InputError, match="labels differ from the test set's"):
        evaluate(MeanColour(), digits.test_images_u8, digits.test_labels, stored, device=CPU)


class FailsInTheMiddle(MeanColour):
    """Raises at its tenth batch, when two cells of 23 images in batches of 7 are done."""

    batches = 0

    def forward(self, images):
        self.batches += 1
        if self.batches == 10:
            raise RuntimeError("out of memory")
        return super().forward(images)


@pytest.mark.parametrize("failing", ["model", "measures"])
def test_an_evaluation_that_fails_leaves_only_the_older_logits(digits, tmp_path, monkeypatch, failing):
    images, labels = digits.test_images_u8, digits.test_labels
    options = {"device": CPU, "logits_dir": tmp_path / "logits"}
    evaluate(MeanColour(), images, labels, EvalConfig(num_images=5, corruption_set="c15"), **options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "logits").iterdir()}
    model = FailsInTheMiddle() if failing == "model" else MeanColour()
    if failing == "measures":
        monkeypatch.setattr(measure, "measure_logits", Mock(side_effect=RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        evaluate(model, images, labels, SMALL, **options)
    assert os.listdir(tmp_path) == ["logits"], caught.tb  # the traceback keeps the generators alive
    assert {path.name: path.read_bytes() for path in (tmp_path / "logits").iterdir()} == before
    monkeypatch.undo()
    evaluate(MeanColour(), images, labels, SMALL, **options)
    assert os.listdir(tmp_path) == ["logits"]
    assert len(read_logits(tmp_path / "logits")[0]) == 23


def test_the_model_is_left_in_its_mode(digits):
    model = MeanColour().train()
    evaluate(model, digits.test_images_u8, digits.test_labels, SMALL, device=CPU)
    assert model.training


def test_more_images_than_there_are_is_refused(digits):
    config = EvalConfig(num_images=600)
    with pytest.raises(InputError, match=r"eval\.num_images: got 600; expected 0\.\.599"):
        evaluate(MeanColour(), digits.test_images_u8, digits.test_labels, config, device=CPU)


def test_fewer_images_than_processes_are_refused(digits):
    world = World(rank=0, size=2)
    with pytest.raises(InputError, match=r"eval\.num_images: got 1; expected at least 2, one for each process"):
        evaluate(
            MeanColour(), digits.test_images_u8, digits.test_labels, EvalConfig(num_images=1), device=CPU, world=world
        )


def test_a_corruption_that_cannot_be_made_leaves_its_sets_unmeasured(digits, monkeypatch, capsys):
    monkeypatch.setattr(cells, "available_corruptions", lambda: tuple(set(CORRUPTION_SETS["c19"]) - {"frost"}))
    results = evaluate(MeanColour(), digits.test_images_u8, digits.test_labels, SMALL, device=CPU)
    mean = np.mean(list(results["corruption_accuracy"].values()))
    assert results["mca"] == {"c15": None, "c18": None, "c19": None, "measured": pytest.approx(mean)}
    assert len(results["corruption_accuracy"]) == 18
    assert "frost" not in results["rms_calibration_error"]["corruption_set"]
    assert "frost left out" in " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("evaluate") / "run"
    train(config_for(["--train.max_steps", "2", "--eval.num_images", "10", "--device", "cpu"], run_dir))
    return run_dir


def test_the_command_measures_a_run_again(run_dir, capsys):
    before = (run_dir / "results.json").read_text()
    assert main(["--run", str(run_dir), "--device", "cpu"]) == 0
    again, trained = json.loads((run_dir / "evaluation.json").read_text()), json.loads(before)
    for name in ("clean_accuracy", "corruption_accuracy", "mca", "rms_calibration_error", "class_accuracy"):
        assert again[name] == trained[name], name
    of_class, labels = trained["class_accuracy"], load_images("digits", "data").test_labels[:10]
    assert (of_class["class_names"], of_class["corruption_set"]) == (list("0123456789"), "c18")
    assert of_class["num_images"] == np.bincount(labels, minlength=10).tolist()
    assert [value is None for value in of_class["clean"]] == [count == 0 for count in of_class["num_images"]]
    assert (run_dir / "results.json").read_text() == before
    printed = capsys.readouterr().out
    assert "clean accuracy" in printed
    assert "c18" in printed
    assert "\nlowest accuracy by class, clean: " in printed


def test_the_command_takes_other_settings_and_another_file(run_dir, tmp_path):
    out = tmp_path / "other.json"
    assert (
        main(["--run", str(run_dir), "--eval.num_images", "5", "--eval.corruption_set", "c15", "--out", str(out)]) == 0
    )
    other = json.loads(out.read_text())
    assert other["num_images"] == 5
    assert len(other["corruption_accuracy"]) == 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nowhere"], "nowhere: no such folder; expected the folder of a run."),
        (["--run", "RUN", "--eval.num_imges", "3"], "Did you mean 'eval.num_images'"),
        (["--run", "RUN", "--corrupted", "nowhere"], "nowhere"),
        (
            ["--run", "RUN", "--model.name", "resnet18"],
            "model.name: got 'resnet18'; expected 'resnet_small', with",
        ),
    ],
)
def test_the_command_names_what_it_cannot_use(arguments, message, run_dir):
    with pytest.raises(InputError) as error:
        main([str(run_dir) if argument == "RUN" else argument for argument in arguments])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "trained"),
    [
        ("method", "rse", "magn_augmix"),
        ("train.seed", "7", "0"),
        ("train.max_steps", "3", "2"),
        ("optim.lr", "0.3", "0.1"),
        ("augment.sigma_max", "0.5", "0.2"),
        ("loss.label_smoothing", "0.1", "0.0"),
        ("model.bn_views", "per_view", "joint"),
        ("data.num_validation_images", "100", "0"),
        ("augment.backend", "kornia", "auto"),
    ],
)
def test_what_the_run_was_trained_with_cannot_be_changed(field, value, trained, run_dir):
    with pytest.raises(InputError) as error:
        parse_arguments(["--run", str(run_dir), f"--{field}", value])
    got, expected = (text if text[0].isdigit() else repr(text) for text in (value, trained))
    assert str(error.value) == (
        f"{field}: got {got}; expected {expected}, with which {run_dir} was trained. Leave it out; to train otherwise,"
        " use fastmagn.train and another --run_dir."
    )


def test_what_is_measured_and_by_what_machine_may_differ(run_dir, tmp_path):
    fields = ["--data.name", "npz", "--data.dir", str(tmp_path), "--data.num_workers", "3", "--train.amp", "bf16"]
    fields += ["--train.seed", "0", "--train.compile", "false", "--eval.num_images", "4", "--method", "magn_augmix"]
    fields += ["--augment.backend", "pil"]
    config = parse_arguments(["--run", str(run_dir), *fields])[1]
    assert (config.data.name, config.data.dir, config.data.num_workers) == ("npz", tmp_path, 3)
    assert (config.train.amp, config.eval.num_images, config.device) == ("bf16", 4, "auto")


def test_a_file_may_say_how_the_run_is_measured(run_dir, tmp_path):
    """Also one that names another folder, as every file of --print_config does; the machine's fields in it count."""
    file = tmp_path / "measure.yaml"
    file.write_text("run_dir: null\ndevice: cpu\ntrain: {amp: fp16, keep_checkpoints: 3}\neval: {num_images: 4}\n")
    own, config = parse_arguments(["--run", str(run_dir), "--config", str(file)])
    assert (config.device, config.train.amp, config.eval.num_images) == ("cpu", "fp16", 4)
    assert not own.takes_runs_precision
    assert parse_arguments(["--run", str(run_dir)])[0].takes_runs_precision


def test_a_run_of_a_gpu_is_measured_on_a_cpu_and_in_reverse(run_dir, tmp_path, monkeypatch):
    copy, few = shutil.copytree(run_dir, tmp_path / "run"), ["--eval.num_images", "4", "--eval.corruption_set", "c15"]
    recorded = (copy / "config.yaml").read_text()
    assert parse_arguments(["--run", str(copy)])[1].device == "auto"
    (copy / "config.yaml").write_text(recorded.replace("device: cpu", "device: cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--run", str(copy), *few]) == 0
    assert json.loads((copy / "evaluation.json").read_text())["config"]["device"] == "cpu"
    with pytest.raises(InputError, match="device: got 'cuda'; expected cpu or auto"):
        main(["--run", str(copy), *few, "--device", "cuda"])


def arrays_of_digits(file, class_names: list[str] | None, num_classes: int = 10) -> None:
    """The first digits; the first training image has the last class."""
    digits = load_images("digits", "data")
    arrays = {
        "train_images": np.asarray(digits.train_images_u8)[:40],
        "train_labels": np.array([num_classes - 1, *digits.train_labels[1:40]]),
        "test_images": np.asarray(digits.test_images_u8)[:10],
        "test_labels": digits.test_labels[:10],
    }
    np.savez(file, **arrays, **({} if class_names is None else {"class_names": np.array(class_names)}))


def test_images_of_other_classes_are_refused(run_dir, tmp_path, capsys):
    """The labels of images without names of classes are the run's own."""
    few = ["--data.name", "npz", "--data.dir", str(tmp_path / "images.npz"), "--device", "cpu"]
    few += ["--eval.corruption_set", "c15", "--eval.num_images", "0"]
    arguments = ["--run", str(run_dir), "--out", str(tmp_path / "out.json"), *few]
    arrays_of_digits(tmp_path / "images.npz", [*"0123456", "eight", "seven", "9"])
    with pytest.raises(InputError) as error:
        main(arguments)
    assert str(error.value) == (
        f"data.name: got npz, whose class 7 is 'eight'; expected '7', as in {run_dir}. Name the images that it was"
        " trained for (--data.name digits), or other images of the same classes under the same names."
    )
    arrays_of_digits(tmp_path / "images.npz", [*"0123456789", "ten"], 11)
    with pytest.raises(InputError, match=r"^data\.name: got npz with 11 classes; expected the 10 of .*run\. Name"):
        main(arguments)
    arrays_of_digits(tmp_path / "images.npz", None)
    capsys.readouterr()
    assert main(arguments) == 0
    assert json.loads((run_dir / "results.json").read_text())["clean_accuracy"] == pytest.approx(
        json.loads((tmp_path / "out.json").read_text())["clean_accuracy"]
    )


def test_a_cache_gives_what_the_fly_gives_and_is_made_once(tmp_path, run_dir, monkeypatch):
    out = tmp_path / "cached.json"
    arguments = ["--run", str(run_dir), "--out", str(out), "--eval.cache_dir", str(tmp_path / "cache")]
    arguments += ["--device", "cpu"]
    assert main(arguments) == 0
    first = json.loads(out.read_text())
    trained = json.loads((run_dir / "results.json").read_text())
    for name in ("clean_accuracy", "corruption_accuracy", "mca", "rms_calibration_error"):
        assert first[name] == trained[name], name
    (folder,) = (tmp_path / "cache").iterdir()
    assert (folder / "manifest.json").exists()
    monkeypatch.setattr(corruption_cache, "make_corrupted_set", lambda *_, **__: pytest.fail("made again"))
    assert main(arguments) == 0
    assert json.loads(out.read_text())["corruption_accuracy"] == first["corruption_accuracy"]

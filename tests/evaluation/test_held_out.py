"""Temperature scaling in an evaluation: which images it is fitted on, what it refuses, and that the rest stays."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, DataConfig, TrainConfig
from fastmagn.data import load_data, load_images, split_validation
from fastmagn.errors import InputError
from fastmagn.evaluate import main
from fastmagn.evaluation.forward import Forward
from fastmagn.evaluation.held_out import HeldOut, find_held_out, fit_on
from fastmagn.evaluation.measure import evaluate
from fastmagn.machine.processes import World
from fastmagn.training.run import train
from tests.evaluation.test_evaluate import CPU, MeanColour
from tests.evaluation.test_evaluate import plain_rms as plain_width_rms
from tests.helpers import published_folders
from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.shards import make_shards
from tests.helpers.small_runs import config_for


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "data")


def config(held_out: int = 0, **eval_fields) -> Config:
    return Config(
        data=DataConfig(name="digits", num_validation_images=held_out),
        eval=EvalConfig(**eval_fields),
        train=TrainConfig(),
    )


def test_validation_images_are_those_that_training_left_out(digits):
    ours = config(200, temperature_images="validation")
    found = find_held_out(ours, digits, ours)
    trained_on, left_out = split_validation(digits, 200, seed=0)
    assert (found.images_u8 == left_out.images_u8).all()
    assert (found.labels == left_out.labels).all()
    trained = {image.tobytes() for image in trained_on.images_u8}
    assert not any(image.tobytes() in trained for image in found.images_u8)


def test_test_images_are_those_that_are_not_measured(digits):
    found = find_held_out(config(num_images=100, temperature_images="test"), digits, None)
    assert (found.images_u8 == digits.test_images_u8[100:]).all()
    assert (found.labels == digits.test_labels[100:]).all()


def test_a_folder_of_other_images(digits, tmp_path):
    for label in (3, 7):
        (tmp_path / str(label)).mkdir()
        Image.fromarray(digits.train_images_u8[label]).save(tmp_path / str(label) / "one.png")
    found = find_held_out(config(temperature_images=str(tmp_path)), digits, None)
    assert found.labels.tolist() == [3, 7]
    assert (np.asarray(found.images_u8) == digits.train_images_u8[[3, 7]]).all()


@pytest.mark.parametrize(
    ("ours", "trained", "message"),
    [
        ({}, None, "got validation; expected test or a folder, as a file of weights does not say which images"),
        ({}, config(), "got validation; expected test or a folder, as the run held out no training images"),
        ({"held_out": 200}, config(), "data.num_validation_images: got 200; expected '0, as in the training"),
        ({"temperature_images": "test"}, None, "got test; expected an eval.num_images below 599 with it"),
        ({"temperature_images": "nowhere"}, None, "got 'nowhere'; expected validation, test, or a folder, CLASS/IMAGE"),
    ],
)
def test_refuses_what_training_or_the_measurement_saw(digits, ours, trained, message):
    with pytest.raises(InputError) as error:
        find_held_out(config(**{"temperature_images": "validation"} | ours), digits, trained)
    assert message.replace("'", "") in str(error.value).replace("'", "")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("part", "said"), [("val", "the measured images"), ("train", "the training images")])
def test_refuses_a_folder_of_the_run_itself(digits, tmp_path, part, said):
    ours = Config(
        data=DataConfig(name="folder", dir=tmp_path), eval=EvalConfig(temperature_images=str(tmp_path / "link"))
    )
    (tmp_path / part / "0").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / part)
    with pytest.raises(InputError, match=f"expected '?other images than {said}"):
        find_held_out(ours, digits, None)


PUBLISHED = {
    "Imagenette": (published_folders.imagenette, "imagenette2/train", "imagenette2/val"),
    "DTD": (published_folders.dtd, "dtd/dtd/images", "dtd/dtd/images/striped"),
    "Food101": (published_folders.food, "food-101/images", "food-101"),
    "StanfordCars": (published_folders.cars, "stanford_cars/cars_train", "stanford_cars/cars_test"),
    "GTSRB": (published_folders.gtsrb, "gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test"),
    "OxfordIIITPet": (published_folders.pets, "oxford-iiit-pet/images", "oxford-iiit-pet/images/new"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_refuses_a_folder_of_the_images_of_a_published_set(tmp_path, name):
    make, *own = PUBLISHED[name]
    root, data = tmp_path / "data", DataConfig(name=f"torchvision:{name}", dir=tmp_path / "data", image_size=32)
    make(root)
    image_set = load_data(data)
    for folder in (*(root / part for part in own), root, tmp_path):
        folder.mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"expected '?other images than the (training|measured) images, "):
            find_held_out(Config(data=data, eval=EvalConfig(temperature_images=str(folder))), image_set, None)
    others = root / "val" / image_set.class_names[0]  # beside the set, in a folder that the set does not have
    others.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(others / "one.png")
    found = find_held_out(Config(data=data, eval=EvalConfig(temperature_images=str(root / "val"))), image_set, None)
    assert found.labels.tolist() == [0]


def test_images_may_lie_beside_shards_but_not_around_them(tmp_path):
    root, photos = tmp_path / "data", make_photo_folder(tmp_path / "photos", 9, 6)
    root.mkdir()
    data = DataConfig(name="webdataset", dir=make_shards(root, photos), image_size=32)
    image_set = load_data(data)
    folder = root / "others" / image_set.class_names[1]
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(folder / "one.png")
    ours = Config(data=data, eval=EvalConfig(temperature_images=str(root / "others")))
    assert find_held_out(ours, image_set, None).labels.tolist() == [1]
    around = dataclasses.replace(ours, eval=EvalConfig(temperature_images=str(root)))
    with pytest.raises(InputError, match=r"expected '?other images than the training images, .*train-000\.tar"):
        find_held_out(around, image_set, None)


def test_calibration_with_a_temperature_is_that_of_divided_logits(digits):
    section = EvalConfig(num_images=23, num_bins=4, corruption_set="c15")
    images = (digits.test_images_u8, digits.test_labels)
    plain = evaluate(MeanColour(), *images, section, device=CPU)
    both = evaluate(MeanColour(), *images, section, device=CPU, temperature=2.5)
    scaled = both.pop("temperature_scaling")
    assert both == plain

    class Divided(MeanColour):
        def forward(self, images):
            return super().forward(images) / 2.5

    divided = evaluate(Divided(), *images, section, device=CPU)
    for name in ("rms_calibration_error", "calibration", "selective_prediction"):
        for part in ("clean", "corrupt"):
            assert scaled[name][part] == pytest.approx(divided[name][part], abs=1e-6), (name, part)
    with torch.inference_mode():
        logits = MeanColour()(torch.from_numpy(images[0][:23]).permute(0, 3, 1, 2) / 255).double() / 2.5
    probs = torch.softmax(logits, dim=1).max(dim=1)
    outcomes = list(zip((probs.indices.numpy() == images[1][:23]).tolist(), probs.values.tolist(), strict=True))
    assert scaled["rms_calibration_error"]["clean"] == pytest.approx(plain_width_rms(outcomes, 4), abs=1e-6)


@pytest.mark.parametrize(("label", "limit"), [(8, "0.01"), (4, "100")])
def test_a_temperature_at_its_limit_is_a_line(label, limit, capsys):
    """All answers are right by a margin, or all wrong: a lower, or a higher, temperature is always better."""
    images_u8 = np.zeros((4, 32, 32, 3), np.uint8)
    images_u8[:, :16, :16] = 255  # MeanColour's logits are highest for class 8, twice the mean of the first quarter
    fitted = fit_on(MeanColour(), HeldOut(images_u8, np.full(4, label), "test"), Forward(CPU, "float32", 4, World()))
    assert fitted is not None
    assert fitted.temperature == float(limit)
    line = f"eval.temperature_images: the temperature {limit} is a limit of 0.01..100; a better one may lie beyond it."
    assert line in " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A short run with 200 held-out images, whose own evaluation already fits a temperature and reads other images."""
    run_dir = tmp_path_factory.mktemp("held-out") / "run"
    fields = ["--train.max_steps", "2", "--eval.num_images", "10", "--device", "cpu", "--eval.corruption_set", "c15"]
    fields += ["--data.num_validation_images", "200", "--eval.temperature_images", "validation"]
    train(config_for(fields, run_dir))
    return run_dir


def test_a_run_and_the_command_fit_the_same_temperature(run_dir, tmp_path, capsys):
    trained = json.loads((run_dir / "results.json").read_text())["temperature_scaling"]
    assert (trained["images"], trained["num_images"]) == ("validation", 200)
    assert trained["nll"]["after"] <= trained["nll"]["before"]
    assert main(["--run", str(run_dir), "--out", str(tmp_path / "again.json"), "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "again.json").read_text())["temperature_scaling"] == trained
    printed = " ".join(capsys.readouterr().out.split())
    assert f"with temperature {trained['temperature']:.3f}, fitted on 200 held-out images (validation)" in printed


def test_validation_of_other_training_images_is_refused(run_dir, tmp_path, monkeypatch):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    digits = load_images("digits", "data")
    other = dataclasses.replace(digits, train_labels=np.roll(digits.train_labels, 1))
    monkeypatch.setattr("fastmagn.evaluation.run.load_measured", lambda data, names: other)
    with pytest.raises(InputError, match="got validation; expected test or a folder, as the training images here are"):
        main(["--run", str(copy)])
    assert not (copy / "evaluation.json").exists()


def test_stored_logits_refuse_what_needs_the_model(tmp_path):
    for field, value in (("ood", "cifar100"), ("temperature_images", "test")):
        with pytest.raises(InputError, match=f"eval.{field}: got '{value}'; expected none with stored logits"):
            main(["--logits", str(tmp_path), f"--eval.{field}", value])


def test_a_run_that_cannot_be_measured_so_is_refused_before_it_trains(tmp_path):
    for fields, message in (
        (["--eval.temperature_images", "validation"], "the run held out no training images"),
        (["--eval.ood", "cifar11"], "got 'cifar11'; expected one of cifar10, cifar100, digits, torchvision:CIFAR10"),
    ):
        with pytest.raises(InputError, match=message):
            train(config_for(["--device", "cpu", *fields], tmp_path / "run"))
        assert not (tmp_path / "run" / "checkpoints").exists()

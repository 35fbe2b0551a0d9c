"""Images of other classes in an evaluation: which they are, what is refused, and the numbers in the results."""

import dataclasses
import math
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn import evaluate_robustness
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, DataConfig
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluation.forward import Forward
from fastmagn.evaluation.ood import find_other_sets, measure_other_sets
from fastmagn.machine.processes import World
from tests.evaluation.metrics.test_detection import plain
from tests.evaluation.test_evaluate import CPU, MeanColour

FORWARD = Forward(CPU, "float32", 16, World())


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "data")


@pytest.fixture
def textures(tmp_path):
    """A folder of 5 images of two sizes in two subfolders, and a sixth file that is no image."""
    rng = np.random.default_rng(0)
    for number in range(5):
        side = 32 if number < 3 else 48
        path = tmp_path / "textures" / f"kind{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    (tmp_path / "textures" / "kind0" / "spoilt.png").write_bytes(b"no image")
    return tmp_path / "textures"


def config(**eval_fields) -> Config:
    return Config(data=DataConfig(name="digits"), eval=EvalConfig(**eval_fields))


def plain_scores(images_u8: np.ndarray) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        logits = MeanColour()(torch.from_numpy(images_u8).permute(0, 3, 1, 2) / 255).double().tolist()
    energy = [max(row) + math.log(sum(math.exp(value - max(row)) for value in row)) for row in logits]
    best = [max(row) for row in logits]
    softmax = [math.exp(b - e) for b, e in zip(best, energy, strict=True)]
    return {"max_softmax": np.array(softmax), "energy": np.array(energy), "max_logit": np.array(best)}


def test_a_folder_is_measured_as_loops_measure_it(digits, textures, capsys):
    others = find_other_sets(config(ood=str(textures)), digits)
    measured = measure_other_sets(MeanColour(), digits.test_images_u8[:40], others, FORWARD)[str(textures)]
    assert (measured["num_test_images"], measured["num_other_images"]) == (40, 5)
    assert "1 of 6 image files cannot be read" in " ".join(capsys.readouterr().out.split())
    images = []
    for path in sorted(textures.rglob("[0-9].png"), key=lambda path: (path.parent.name, path.name)):
        image = Image.open(path)
        images.append(np.asarray(image if image.width == 32 else image.resize((32, 32), Image.Resampling.BICUBIC)))
    of_tests, of_others = plain_scores(digits.test_images_u8[:40]), plain_scores(np.stack(images))
    for score in ("max_softmax", "energy", "max_logit"):
        assert measured[score] == pytest.approx(plain(of_tests[score], of_others[score]), abs=1e-9), score


def test_fewer_images_are_drawn_evenly_over_the_subfolders(digits, textures):
    (textures / "kind0" / "spoilt.png").unlink()
    found = find_other_sets(config(ood=str(textures), num_images=2), digits)[str(textures)]
    assert sorted(path.parent.name for path in found.paths) == ["kind0", "kind1"]


@pytest.mark.data
def test_a_data_set_by_its_name(digits):
    cifar = Config(data=DataConfig(name="cifar10", dir=os.environ["FASTMAGN_DATA"]), eval=EvalConfig(num_images=7))
    ood = Config(data=cifar.data, eval=EvalConfig(ood="cifar100, digits", num_images=7))
    own = load_images("cifar10", cifar.data.dir)
    found = find_other_sets(ood, own)
    assert list(found) == ["cifar100", "digits"]
    assert (found["cifar100"] == load_images("cifar100", cifar.data.dir).test_images_u8[:7]).all()
    assert (found["digits"] == digits.test_images_u8[:7]).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits", "eval.ood: got 'digits'; expected images of other classes than the model's own data set"),
        ("cifar11", "eval.ood: got 'cifar11'; expected one of cifar10, cifar100, digits, torchvision:CIFAR10, "),
        ("EMPTY", "expected a folder with images in it or in its subfolders"),
    ],
)
def test_names_what_it_cannot_use(digits, tmp_path, name, message):
    with pytest.raises(InputError) as error:
        find_other_sets(config(ood=str(tmp_path) if name == "EMPTY" else name), digits)
    assert message in str(error.value).replace('"', "'")
    assert "\n" not in str(error.value)


def test_a_data_set_that_is_not_in_the_models_folder_is_named_with_the_field(digits, tmp_path):
    ours = Config(data=DataConfig(name="folder", dir=tmp_path), eval=EvalConfig(ood="cifar100"))
    with pytest.raises(InputError) as error:
        find_other_sets(ours, digits)
    said = str(error.value)
    assert said.startswith(
        "eval.ood: got cifar100, whose images are expected in data.dir. data.dir: looked for CIFAR-100"
    )
    assert said.endswith("fetch it with --data.download true.")  # another --data.name would be another model


def test_a_data_set_of_another_size_is_refused(digits):
    large = dataclasses.replace(digits, test_images_u8=np.zeros((2, 64, 64, 3), np.uint8), test_labels=np.zeros(2, int))
    ours = Config(data=DataConfig(name="folder"), eval=EvalConfig(ood="digits"))
    with pytest.raises(InputError, match="got digits, whose images have 32 px; the model is tested on images of 64 px"):
        find_other_sets(ours, large)


def test_evaluate_robustness_measures_other_images_and_fits_a_temperature(digits):
    tests, labels = digits.test_images_u8[:12], digits.test_labels[:12]
    others, held_out = digits.train_images_u8[:9], (digits.train_images_u8[20:60], digits.train_labels[20:60])
    before = evaluate_robustness(MeanColour(), tests, labels)
    results = evaluate_robustness(MeanColour(), tests, labels, ood={"digits": others}, held_out=held_out)
    entry, scaling = results.pop("ood")["digits"], results.pop("temperature_scaling")
    assert results == before
    of_tests, of_others = plain_scores(tests), plain_scores(others)
    assert entry["energy"] == pytest.approx(plain(of_tests["energy"], of_others["energy"]), abs=1e-9)
    assert scaling["num_images"] == 40
    assert scaling["nll"]["after"] < scaling["nll"]["before"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"held_out": "TESTS"}, "held_out: got '3 images, 3 of which are measured'; expected other images than"),
        ({"held_out": 3}, "held_out: got 'a int'; expected (images, labels), a Dataset of both, or None"),
        ({"held_out": "WRONG"}, "held_out: labels: got 10; expected classes 0..9"),
        ({"ood": [1]}, "ood: got 'a list'; expected {name: images}, or None"),
        ({"ood": {"x": np.zeros((2, 8, 8), np.uint8)}}, "ood x: got uint8 [2, 8, 8]; expected a NumPy array uint8"),
    ],
)
def test_evaluate_robustness_names_what_it_cannot_use(digits, arguments, message):
    tests, labels = digits.test_images_u8[:12], digits.test_labels[:12]
    if arguments.get("held_out") == "TESTS":
        arguments = {"held_out": (tests[:3], labels[:3])}
    elif arguments.get("held_out") == "WRONG":
        arguments = {"held_out": (digits.train_images_u8[:2], [1, 10])}
    with pytest.raises(InputError) as error:
        evaluate_robustness(MeanColour(), tests, labels, **arguments)
    assert message.replace("'", "") in str(error.value).replace("'", "")

"""-C folders of any corruptions and severities, .npy files and image trees: against plain means."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastmagn import evaluate_robustness
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, available_corruptions, corrupt
from fastmagn.corruptions.sets import CIFAR_CBAR, IMAGENET_CBAR
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import make_corrupted_set
from fastmagn.evaluation.measure import evaluate, summarise_logits

CPU = torch.device("cpu")
LABELS = np.repeat(np.arange(3), 4)
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
NAMES = ("cat", "dog", "fox")


class Brightest(nn.Module):
    """Logits that a loop can repeat: the mean of each channel."""

    def forward(self, images):
        return 20 * images.mean(dim=(2, 3))


class Ten(nn.Module):
    """Logits of ten classes: the means of ten rows."""

    def forward(self, images):
        return 20 * images[:, 0, :10].mean(dim=2)


def accuracy(images_u8: np.ndarray) -> float:
    return float(np.mean(images_u8.astype(np.float64).mean((1, 2)).argmax(1) == LABELS))


def cell(name: str, severity: int) -> np.ndarray:
    """Foreign pixels: another image for each name and severity."""
    rng = np.random.default_rng([severity, *name.encode()])
    return rng.integers(0, 256, IMAGES.shape, np.uint8)


def write_npy(folder, stored: dict[str, int], tiled: int = 5) -> None:
    """`stored`: corruption -> its number of severities."""
    folder.mkdir(exist_ok=True)
    for name, count in stored.items():
        np.save(folder / f"{name}.npy", np.concatenate([cell(name, s) for s in range(1, count + 1)]))
    np.save(folder / "labels.npy", np.tile(LABELS, tiled))


def write_tree(folder, stored: dict[str, dict[str, int]]) -> None:
    """`stored`: corruption -> name of a severity's folder -> the severity."""
    for name, severities in stored.items():
        for place, severity in severities.items():
            for i, image in enumerate(cell(name, severity)):
                path = folder / name / place / NAMES[LABELS[i]] / f"{i:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)


def measure(folder, logits_dir=None, **settings) -> dict:
    config = EvalConfig(corrupted_dir=folder, **settings)
    return evaluate(Brightest(), IMAGES, LABELS, config, device=CPU, class_names=NAMES, logits_dir=logits_dir)


def test_cbar_on_the_fly_has_its_mean_beside_the_others():
    results = evaluate_robustness(Brightest(), IMAGES, LABELS, corruption_set="cbar")
    assert tuple(results["corruption_accuracy"]) == CIFAR_CBAR
    expected = {name: [accuracy(corrupt(IMAGES, name, s)) for s in range(1, 6)] for name in CIFAR_CBAR}
    for name, values in expected.items():
        assert results["corruption_accuracy"][name] == pytest.approx(values), name
    mean = np.mean([value for values in expected.values() for value in values])
    assert results["mca"] == {"c15": None, "c18": None, "c19": None, "cbar": pytest.approx(mean)}
    assert results["rms_calibration_error"]["corruption_set"] == "cbar"
    assert "severities" not in results


def test_large_images_get_imagenets_ten():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    results = evaluate_robustness(Brightest(), images, [0, 1, 2], corruption_set="cbar")
    assert tuple(results["corruption_accuracy"]) == IMAGENET_CBAR


@pytest.mark.skipif("frost" not in available_corruptions(), reason="the frost pictures are not installed")
def test_a_union_is_made_stored_and_measured_with_a_mean_for_each_part(tmp_path):
    config = CorruptConfig(out=tmp_path / "set", dataset="digits", num_images=6, corruption_set="cbar+c15")
    manifest = make_corrupted_set(config)
    assert tuple(manifest["corruptions"]) == CIFAR_CBAR + CORRUPTION_SETS["c15"]
    digits = load_images("digits", Path())
    images, labels = digits.test_images_u8, digits.test_labels
    settings = {"num_images": 6, "subset": "first", "corruption_set": "c15+cbar"}
    stored = evaluate_robustness(Ten(), images, labels, corrupted_dir=tmp_path / "set", **settings)
    assert stored == evaluate_robustness(Ten(), images, labels, **settings)
    for part, members in {"c15": CORRUPTION_SETS["c15"], "cbar": CIFAR_CBAR}.items():
        mean = np.mean([stored["corruption_accuracy"][name] for name in members])
        assert stored["mca"][part] == pytest.approx(mean)
    assert stored["rms_calibration_error"]["corruption_set"] == "c15"


@pytest.mark.parametrize("tiled", [1, 5])
def test_npy_files_of_any_names_and_numbers_of_severities(tmp_path, tiled, capsys):
    stored = {"fog": 5, "near_focus": 5, "my own": 3}
    write_npy(tmp_path / "set", stored, tiled)
    results = measure(tmp_path / "set")
    expected = {name: [accuracy(cell(name, s)) for s in range(1, n + 1)] for name, n in stored.items()}
    assert list(results["corruption_accuracy"]) == ["fog", "my own", "near_focus"]
    for name, values in expected.items():
        assert results["corruption_accuracy"][name] == [*map(pytest.approx, values), *[None] * (5 - len(values))]
    assert results["severities"] == {"my own": [1, 2, 3]}
    assert results["rms_calibration_error"]["corruption_set"] == "fog"
    mean = np.mean([np.mean(values) for values in expected.values()])
    assert results["mca"] == {"c15": None, "c18": None, "c19": None, "measured": pytest.approx(mean)}
    assert "fewer than five severities: my own (1, 2, 3)" in " ".join(capsys.readouterr().out.split())
    json.dumps(results, allow_nan=False)


def test_the_first_images_of_a_set_of_one_severity(tmp_path):
    write_npy(tmp_path / "set", {"flash": 1}, tiled=1)
    results = measure(tmp_path / "set", num_images=6)
    right = cell("flash", 1)[:6].astype(np.float64).mean((1, 2)).argmax(1) == LABELS[:6]
    assert results["corruption_accuracy"]["flash"] == [pytest.approx(right.mean()), None, None, None, None]


def test_a_calibration_errors_title_says_severities_that_are_not_all_five(tmp_path):
    write_npy(tmp_path / "c15", dict.fromkeys(CORRUPTION_SETS["c15"], 1) | {"speckle_noise": 1}, tiled=1)
    config = EvalConfig(corrupted_dir=tmp_path / "c15", corruption_set="c15")
    results = evaluate(Brightest(), IMAGES, LABELS, config, device=CPU, class_names=NAMES, temperature=2.0)
    scaled = results["temperature_scaling"]
    for entry in (
        results["calibration"],
        results["selective_prediction"],
        scaled["rms_calibration_error"],
        scaled["calibration"],
    ):
        assert entry["corruption_set"] == "c15 at severity 1"
    write_npy(tmp_path / "two", {"fog": 5, "snow": 2}, tiled=1)
    title = measure(tmp_path / "two")["rms_calibration_error"]["corruption_set"]
    assert title == "snow+fog at severities 1 and 2 of snow, severities 1 to 5 of the others"


def test_a_tree_of_any_names_and_severities(tmp_path):
    write_tree(
        tmp_path / "set", {"xy_motion_blur": {"1": 1, "3": 3, "5": 5}, "ripple": {str(s): s for s in range(1, 6)}}
    )
    results = measure(tmp_path / "set")
    expected = [accuracy(cell("xy_motion_blur", s)) for s in (1, 3, 5)]
    table = results["corruption_accuracy"]
    assert [table["xy_motion_blur"][s - 1] for s in (1, 3, 5)] == pytest.approx(expected)
    assert table["xy_motion_blur"][1] is table["xy_motion_blur"][3] is None
    assert table["ripple"] == pytest.approx([accuracy(cell("ripple", s)) for s in range(1, 6)])
    assert results["mca"]["measured"] == pytest.approx((np.mean(table["ripple"]) + np.mean(expected)) / 2)


def test_the_levels_of_the_code_that_made_imagenet_c_bar_are_severities(tmp_path):
    places = {"10.00": 5, "2.00": 2, "1.00": 1, "4.00": 3, "9.00": 4}
    write_tree(tmp_path / "set", {"inverse_sparkles": places})
    values = measure(tmp_path / "set")["corruption_accuracy"]["inverse_sparkles"]
    assert values == pytest.approx([accuracy(cell("inverse_sparkles", s)) for s in range(1, 6)])


def test_a_known_set_beside_the_chosen_one_is_left_out_and_named(tmp_path, capsys):
    write_npy(tmp_path / "set", dict.fromkeys(("fog", *CIFAR_CBAR, "mine"), 5))
    assert list(measure(tmp_path / "set")["corruption_accuracy"]) == ["fog", "mine"]
    assert "--eval.corruption_set c19+cbar measures them" in " ".join(capsys.readouterr().out.split())
    results = measure(tmp_path / "set", corruption_set="c19+cbar")
    assert set(results["corruption_accuracy"]) == {"fog", *CIFAR_CBAR, "mine"}
    mean = np.mean([[accuracy(cell(name, s)) for s in range(1, 6)] for name in CIFAR_CBAR])
    assert results["mca"]["cbar"] == pytest.approx(mean)


def test_a_folder_without_any_of_the_set_is_measured_whole(tmp_path, capsys):
    write_npy(tmp_path / "set", dict.fromkeys(CIFAR_CBAR, 5))
    results = measure(tmp_path / "set", corruption_set="c15")
    assert tuple(results["corruption_accuracy"]) == CIFAR_CBAR
    assert "measured" not in results["mca"]
    assert "holds none of c15's corruptions; all that it holds are measured" in " ".join(
        capsys.readouterr().out.split()
    )


def test_stored_logits_give_the_same_numbers(tmp_path):
    write_tree(tmp_path / "set", {"mine": {"2": 2, "4": 4}, "fog": {str(s): s for s in range(1, 6)}})
    results = measure(tmp_path / "set", logits_dir=tmp_path / "logits")
    again = summarise_logits(tmp_path / "logits", EvalConfig())
    del results["class_accuracy"]["class_names"]
    assert again == {name: value for name, value in results.items() if name not in ("subset", "corrupted_as")}
    assert again["severities"] == {"mine": [2, 4]}
    (tmp_path / "logits" / "severities.json").write_text('{"mine": [4, 2]}')
    with pytest.raises(InputError, match=r"severities\.json: damaged \(expected an object of ascending severities"):
        summarise_logits(tmp_path / "logits", EvalConfig())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda set_: shutil.rmtree(set_), "set: cannot be read (No such file or directory); a -C set holds <corr"),
        (lambda set_: [path.unlink() for path in set_.iterdir()], "set: holds no corruption; a -C set holds <corr"),
        (lambda set_: (set_ / "labels.npy").unlink(), "labels.npy: no such file; a -C set holds"),
        (lambda set_: (set_ / "fog.npy").rename(set_ / "clean.npy"), "holds a corruption named clean, as the uncorr"),
        (lambda set_: np.save(set_ / "fog.npy", np.zeros((50, 16, 16, 3), np.uint8)), "fog.npy: holds 50 images; exp"),
        (lambda set_: np.save(set_ / "fog.npy", np.zeros((84, 16, 16, 3), np.uint8)), "fog.npy: holds 84 images; exp"),
        (lambda set_: np.save(set_ / "labels.npy", np.tile(LABELS, 3)), "got int64 [36]; expected integers [12] or"),
        (lambda set_: np.save(set_ / "labels.npy", np.tile(1 - LABELS, 5)), "labels differ from the test set's"),
        (lambda set_: (set_ / "snow").mkdir(), "snow: has no severities; expected folders 1 to 5 in it"),
        (lambda set_: (set_ / "mine" / "0").mkdir(parents=True), "mine: has severities 0; expected folders 1 to 5"),
    ],
)
def test_wrong_layouts_are_one_clear_line(tmp_path, damage, message):
    write_npy(tmp_path / "set", {"fog": 5})
    damage(tmp_path / "set")
    with pytest.raises(InputError) as error:
        measure(tmp_path / "set")
    assert message in str(error.value)
    assert "\n" not in str(error.value)

"""Single corruptions and some severities: the same numbers to the bit as in the whole set, made, stored and cached."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastmagn import evaluate_robustness
from fastmagn.config.corruption_sets import ALL_SEVERITIES, CORRUPTION_NAMES, severity_numbers
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config
from fastmagn.corruptions import CORRUPTION_SETS, CORRUPTIONS, SEVERITIES, available_corruptions, corrupt
from fastmagn.corruptions.sets import CIFAR_CBAR
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluation import cells, run
from fastmagn.evaluation import measure as measuring
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.corrupted_set import make_corrupted_set
from fastmagn.evaluation.corruption_cache import use_cache
from fastmagn.evaluation.measure import evaluate, summarise_logits
from fastmagn.machine.processes import World

# Of c15 and of C-bar, so that parts of them are measured besides.
WHOLE = "fog+snow+pixelate+sparkles"
NUM_IMAGES = 6
DIGITS = load_images("digits", Path())
IMAGES, LABELS = DIGITS.test_images_u8[:NUM_IMAGES], DIGITS.test_labels[:NUM_IMAGES]
CPU = torch.device("cpu")
NO_SETS = {"c15": None, "c18": None, "c19": None}


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def measure(corruption_set: str, severities: tuple[int, ...] = SEVERITIES, **options) -> dict:
    return evaluate_robustness(
        model(), IMAGES, LABELS, corruption_set=corruption_set, severities=severities, progress=False, **options
    )


@pytest.fixture(scope="module")
def whole() -> dict:
    return measure(WHOLE)


@pytest.fixture
def stored(tmp_path) -> Path:
    folder = tmp_path / "set"
    make_corrupted_set(CorruptConfig(out=folder, dataset="digits", num_images=NUM_IMAGES, corruption_set=WHOLE))
    return folder


def plain_accuracies(name: str, severities=SEVERITIES) -> list[float]:
    """Without fastmagn's evaluation."""
    accuracies = []
    for severity in severities:
        pixels = torch.from_numpy(corrupt(IMAGES, name, severity)).permute(0, 3, 1, 2) / 255
        accuracies.append(np.mean(model()(pixels).argmax(1).numpy() == LABELS))
    return accuracies


def test_the_names_and_severities_of_the_configuration_are_those_that_can_be_made():
    assert tuple(name for name, registered in CORRUPTIONS.items() if isinstance(registered, str)) == CORRUPTION_NAMES
    assert severity_numbers("severities", ALL_SEVERITIES) == SEVERITIES


@pytest.mark.skipif("frost" not in available_corruptions(), reason="the frost pictures are not installed")
def test_fog_has_its_row_of_c15_made_stored_and_cached(tmp_path, whole):
    c15 = measure("c15")
    make_corrupted_set(CorruptConfig(out=tmp_path / "set", dataset="digits", num_images=6, corruption_set="c15"))
    cached(tmp_path / "cache", "c15")
    row = {"fog": c15["corruption_accuracy"]["fog"]}
    assert measure("fog")["corruption_accuracy"] == row
    assert measure("fog", corrupted_dir=tmp_path / "set")["corruption_accuracy"] == row
    assert cached(tmp_path / "cache", "fog")[1]["corruption_accuracy"] == row
    assert None not in row["fog"]
    assert c15["mca"]["c15"] is not None


def test_one_corruption_has_its_row_of_the_set_and_no_sets_mean(whole):
    fog = measure("fog")
    assert fog["corruption_accuracy"] == {"fog": whole["corruption_accuracy"]["fog"]}
    assert fog["corruption_accuracy"]["fog"] == pytest.approx(plain_accuracies("fog"))
    assert fog["mca"] == NO_SETS | {"measured": pytest.approx(np.mean(plain_accuracies("fog")))}
    assert fog["rms_calibration_error"]["corruption_set"] == "fog"
    assert fog["corrupted_as"]["published"] == "CIFAR-10-C, CIFAR-100-C"
    assert "severities" not in fog


def test_a_corruption_that_is_in_a_set_beside_it_counts_once():
    assert [*measure("sparkles+cbar+fog+sparkles", (3,))["corruption_accuracy"]] == [
        *("sparkles", *(name for name in CIFAR_CBAR if name != "sparkles"), "fog")
    ]
    for both in ("snow+fog", "fog+snow"):  # a report takes equal titles for equal sets
        title = measure(both, (3,))["rms_calibration_error"]["corruption_set"]
        assert title == "snow+fog at severity 3"


def test_some_severities_have_their_cells_of_the_set_and_no_sets_mean(whole):
    some = measure(WHOLE, (1, 3, 5))
    expected = {
        name: [value if s in (1, 3, 5) else None for s, value in enumerate(row, start=1)]
        for name, row in whole["corruption_accuracy"].items()
    }
    assert some["corruption_accuracy"] == expected
    assert some["severities"] == {name: [1, 3, 5] for name in expected}
    mean = np.mean([plain_accuracies(name, (1, 3, 5)) for name in expected])
    assert some["mca"] == NO_SETS | {"measured": pytest.approx(mean)}
    cbar = measure("cbar", (2,))
    assert cbar["mca"]["cbar"] is None
    assert cbar["rms_calibration_error"]["corruption_set"] == "cbar at severity 2"


def test_stored_logits_of_some_cells_give_the_same_numbers(tmp_path):
    config = EvalConfig(corruption_set="snow+fog", severities="2,4")
    options = {"device": CPU, "class_names": DIGITS.class_names, "progress": False}
    results = evaluate(model(), IMAGES, LABELS, config, logits_dir=tmp_path / "logits", **options)
    again = summarise_logits(tmp_path / "logits", config)
    del results["class_accuracy"]["class_names"]
    assert again == {name: results[name] for name in again}
    assert again["severities"] == {"snow": [2, 4], "fog": [2, 4]}


def test_of_a_stored_set_only_what_is_asked_for_is_read(stored, whole):
    (stored / "snow.npy").unlink()
    (stored / "pixelate.npy").write_bytes(b"no array")
    np.save(stored / "my_rain.npy", np.zeros(3, np.uint8))
    fog = measure("fog", corrupted_dir=stored)
    assert fog == measure("fog")
    assert measure("fog+sparkles", (2, 5), corrupted_dir=stored) == measure("fog+sparkles", (2, 5))
    with pytest.raises(InputError, match=r"pixelate\.npy"):
        measure("fog+pixelate", corrupted_dir=stored)


def test_what_a_stored_set_lacks_is_named(tmp_path, stored, capsys):
    expected = re.escape(f"corruption_set: {stored} does not hold frost; it holds snow, fog, pixelate")
    with pytest.raises(InputError, match=f"^{expected}"):
        measure("frost", corrupted_dir=stored)
    assert [*measure("frost+fog", corrupted_dir=stored)["corruption_accuracy"]] == ["fog"]
    assert "frost left out" in capsys.readouterr().out
    (stored / "manifest.json").unlink()
    fog = np.load(stored / "fog.npy")
    np.save(stored / "fog.npy", fog[: 2 * NUM_IMAGES])
    np.save(stored / "labels.npy", LABELS)
    measured = measure("fog+snow", (2, 4), corrupted_dir=stored)
    assert measured["severities"] == {"fog": [2], "snow": [2, 4]}
    assert "fewer than the chosen severities: fog (2)" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"^severities: .* holds none of 4,5 of fog; choose those it holds\.$"):
        measure("fog", (4, 5), corrupted_dir=stored)


def test_of_a_tree_of_image_files_only_what_is_asked_for_is_read(tmp_path, capsys):
    names = [str(digit) for digit in range(10)]
    order = np.argsort(LABELS, kind="stable")
    images, labels = IMAGES[order], LABELS[order]
    for name in ("fog", "snow"):
        for severity in (1, 3, 4):
            for i, image in enumerate(corrupt(images, name, severity)):
                path = tmp_path / name / str(severity) / names[labels[i]] / f"{i:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    shutil.rmtree(tmp_path / "snow" / "3")
    (tmp_path / "snow" / "9").mkdir()  # no severity
    shutil.rmtree(tmp_path / "fog" / "4" / names[labels[0]])  # not measured
    (tmp_path / "frost").mkdir()
    options = {"device": CPU, "class_names": names, "progress": False}
    config = EvalConfig(corruption_set="fog", severities="1,3", corrupted_dir=tmp_path)
    results = evaluate(model(), images, labels, config, **options)
    made = evaluate(model(), images, labels, EvalConfig(corruption_set="fog", severities="1,3"), **options)
    assert results["corruption_accuracy"] == made["corruption_accuracy"]
    assert "severities" not in capsys.readouterr().out
    with pytest.raises(InputError, match="has severities 9"):
        evaluate(model(), images, labels, EvalConfig(corruption_set="snow", corrupted_dir=tmp_path), **options)


def cached(cache: Path, corruption_set: str, severities: str = ALL_SEVERITIES) -> tuple[Path | None, dict]:
    """The folder of the set that is used, and the results."""
    section = EvalConfig(
        corruption_set=corruption_set, severities=severities, num_images=NUM_IMAGES, cache_dir=cache, batch_size=256
    )
    used = use_cache(Config(eval=section), World(), DIGITS)
    results = evaluate(model(), DIGITS.test_images_u8, DIGITS.test_labels, used, device=CPU, progress=False)
    return used.corrupted_dir, results


def test_the_set_of_one_corruption_is_another_than_the_whole_one(tmp_path, whole):
    fog_dir, fog = cached(tmp_path, "fog")
    assert fog_dir is not None
    assert {path.stem for path in fog_dir.glob("*.npy")} == {"fog", "labels"}
    whole_dir, all_of_it = cached(tmp_path, WHOLE)
    assert whole_dir != fog_dir
    assert all_of_it["corruption_accuracy"] == whole["corruption_accuracy"]
    assert fog["corruption_accuracy"]["fog"] == whole["corruption_accuracy"]["fog"]
    assert len([*tmp_path.iterdir()]) == 2


def test_a_whole_set_in_the_cache_is_read_for_its_parts(tmp_path, capsys):
    whole_dir, _ = cached(tmp_path, WHOLE)
    for part, severities in (("fog", ALL_SEVERITIES), ("snow+fog", ALL_SEVERITIES), (WHOLE, "1,4"), ("sparkles", "5")):
        used, results = cached(tmp_path, part, severities)
        assert used == whole_dir, part
        made = measure(part, severity_numbers("", severities))
        assert results | {"subset": None} == made | {"subset": None}, part
    assert [*tmp_path.iterdir()] == [whole_dir]
    assert "warning" not in capsys.readouterr().out


def test_before_a_training_a_set_that_the_cache_holds_is_found(tmp_path, monkeypatch):
    """What it holds cannot be made here."""
    fog_dir, _ = cached(tmp_path, "fog")
    monkeypatch.setattr(run, "available_corruptions", tuple)
    monkeypatch.setattr(cells, "available_corruptions", tuple)
    config = Config(eval=EvalConfig(corruption_set="fog", num_images=NUM_IMAGES, cache_dir=tmp_path))
    run.check_evaluation(DIGITS, config, World())
    (fog_dir / "manifest.json").rename(fog_dir / "gone")
    with pytest.raises(InputError, match=r"^eval\.corruption_set: fog cannot be made here"):
        run.check_evaluation(DIGITS, config, World())


@pytest.mark.skipif("frost" not in available_corruptions(), reason="the frost pictures are not installed")
def test_a_larger_set_of_the_cache_gives_no_advice(tmp_path, capsys):
    whole_dir, _ = cached(tmp_path, "c18+cbar", "1,2,3,4,5")
    capsys.readouterr()
    used, _ = cached(tmp_path, "c18", "5")
    assert used == whole_dir
    assert "also holds" not in capsys.readouterr().out


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [0, 1, 1, 0, 1, 0]])
def test_alexnets_errors_divide_those_on_all_classes_only(labels, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "IMAGENET_CLASSES", 3)
    for name in CORRUPTION_SETS["c15"]:
        for i in np.argsort(labels, kind="stable"):
            path = tmp_path / name / "1" / "abc"[labels[i]] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(IMAGES[i]).save(path)
    order, config = np.argsort(labels, kind="stable"), EvalConfig(corruption_set="c15", corrupted_dir=tmp_path)
    options = {"device": CPU, "class_names": tuple("abc"), "progress": False}
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    results = evaluate(network, IMAGES[order], np.array(labels)[order], config, **options)
    assert ("mce_alexnet" in results) == (2 in labels)


def test_no_set_is_made_for_some_severities_or_read_of_other_images(tmp_path, capsys):
    used, results = cached(tmp_path / "cache", "fog", "1,4")
    assert used is None
    assert results["severities"] == {"fog": [1, 4]}
    told = capsys.readouterr().out
    assert "eval.cache_dir: not used, as" in told
    assert "none is made for some severities only" in " ".join(told.split())
    assert not (tmp_path / "cache").exists()
    used, _ = cached(tmp_path / "cache", WHOLE)
    section = EvalConfig(corruption_set="fog", num_images=NUM_IMAGES, cache_dir=tmp_path / "cache", corruption_seed=1)
    assert use_cache(Config(eval=section), World(), DIGITS).corrupted_dir != used


@pytest.mark.parametrize(
    ("name", "hint"), [("foog", " Did you mean 'fog'?"), ("c15+snwo", " Did you mean 'snow'?"), ("+", "")]
)
def test_an_unknown_name_is_one_line_with_the_nearest(name, hint):
    expected = (
        f"eval.corruption_set: got {name!r}; expected one of c15, c18, c19, cbar, or a corruption such as fog, or"
        f" several of these joined by +, such as c15+cbar.{hint}"
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        EvalConfig(corruption_set=name)


@pytest.mark.parametrize("value", ["", "0", "1,6", "3,1", "1,1", "1, 3", "1-3", 12])
def test_severities_are_some_of_five_in_order(value):
    with pytest.raises(InputError, match=r"^eval\.severities: got .*; expected some of 1,2,3,4,5, rising, such as"):
        EvalConfig(severities=value)
    assert EvalConfig(severities=3) == EvalConfig(severities="3")  # YAML's and the command line's


@pytest.mark.parametrize("value", [(), (0, 1), (3, 1), (1, 1), "1,3", 3, (1.0, 2.0), None])
def test_the_functions_severities_are_some_of_five_in_order(value):
    with pytest.raises(InputError, match=r"^severities: got .*; expected some of 1, 2, 3, 4, 5, rising, such as"):
        measure("fog", value)
    assert measure("fog", [2])["corruption_accuracy"] == measure("fog", np.array([2]))["corruption_accuracy"]

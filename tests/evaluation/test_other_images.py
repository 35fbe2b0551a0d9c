"""Images of some of a run's classes from elsewhere: the command against loops in float64, and what it refuses."""

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmagn.config.command_line import parse_config
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.data import load_images
from fastmagn.errors import InputError
from fastmagn.evaluate import main
from fastmagn.evaluation import run as run_module
from fastmagn.evaluation import shown
from fastmagn.evaluation.class_mapping import read_mapping
from fastmagn.evaluation.other_images import measure_images, summarise_images
from fastmagn.evaluation.shown import print_images
from fastmagn.evaluation.trained import load_run
from fastmagn.training.run import train
from tests.helpers.small_runs import config_for

BINS = 4


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("other_images") / "run"
    arguments = ["--train.max_steps", "12", "--train.amp", "float32", "--device", "cpu"]
    train(config_for(arguments, run_dir, "--eval.num_images", "4", "--eval.corruption_set", "c15"))
    return run_dir


@pytest.fixture
def folder(tmp_path):
    """Twelve digits each of three classes, under other names: seven, and two and deux for the same class."""
    images = load_images("digits", "data")
    for name, label, skip in (("seven", 7, 0), ("two", 2, 0), ("deux", 2, 12), ("4", 4, 0)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in np.flatnonzero(images.test_labels == label)[skip : skip + 12]:
            Image.fromarray(images.test_images_u8[i]).save(tmp_path / "images" / name / f"{i:04}.png")
    (tmp_path / "images" / ".hidden").mkdir()
    (tmp_path / "images" / "README.txt").write_text("not a class")
    return tmp_path / "images"


CLASSES = {"seven": "7", "two": "2", "deux": "2"}


@pytest.fixture
def classes(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    return tmp_path / "classes.json"


def plain_measures(run_dir, folder) -> dict[str, tuple[float, float]]:
    """Accuracy and RMS calibration error among all ten classes, and among 2, 4 and 7, image by image in float64."""
    config = parse_config(["--config", str(run_dir / "config.yaml")], "test", "A test.")
    model = load_run(run_dir, config=config, image_set=load_images("digits", "data")).network.double().eval()
    outcomes = {"all_classes": [], "own_classes": []}
    for path in sorted(folder.glob("[a-z0-9]*/*.png")):
        label = int(CLASSES.get(path.parent.name, path.parent.name))
        pixels = torch.tensor(np.asarray(Image.open(path)), dtype=torch.float64).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            logits = model(pixels)[0].tolist()
        for name, members in (("all_classes", range(10)), ("own_classes", (2, 4, 7))):
            exponentials = {k: math.exp(logits[k]) for k in members}
            best = max(members, key=lambda k: logits[k])
            outcomes[name].append((best == label, exponentials[best] / sum(exponentials.values())))
    return {name: (sum(right for right, _ in group) / len(group), plain_rms(group)) for name, group in outcomes.items()}


def plain_rms(group: list[tuple[bool, float]]) -> float:
    total = 0.0
    for i in range(BINS):
        members = [o for o in group if i / BINS <= o[1] < (i + 1) / BINS or (i == BINS - 1 and o[1] == 1)]
        if members:
            gap = sum(right for right, _ in members) / len(members) - sum(c for _, c in members) / len(members)
            total += len(members) / len(group) * gap**2
    return math.sqrt(total)


def test_measures_equal_plain_loops(run_dir, folder, classes, tmp_path, capsys):
    out = tmp_path / "out.json"
    arguments = ["--run", str(run_dir), "--images", str(folder), "--classes", str(classes), "--out", str(out)]
    assert main([*arguments, "--eval.num_bins", str(BINS), "--eval.batch_size", "11"]) == 0
    entry = json.loads(out.read_text())["image_folders"][str(folder)]
    expected = plain_measures(run_dir, folder)
    for name, (accuracy, rms) in expected.items():
        assert entry[name]["accuracy"] == pytest.approx(accuracy, abs=1e-9), name
        assert entry[name]["rms_calibration_error"] == pytest.approx(rms, abs=1e-5), name
    assert expected["own_classes"] != expected["all_classes"]
    assert (entry["num_images"], entry["num_classes"], entry["num_unreadable"]) == (48, 3, 0)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{folder}: 48 images of 3 classes" in printed
    assert f"(as ImageNet-A and -R are published) {100 * expected['own_classes'][0]:.2f} %" in printed
    assert f"among all 10 classes {100 * expected['all_classes'][0]:.2f} %" in printed
    of_class = entry["class_accuracy"]
    assert of_class["class_names"] == ["2", "4", "7"]
    assert sum(of_class["num_images"]) == 48
    for name, (accuracy, _) in expected.items():
        rights = [a * n for a, n in zip(of_class[name], of_class["num_images"], strict=True)]
        assert rights == pytest.approx([round(right) for right in rights], abs=1e-9)
        assert sum(rights) / 48 == pytest.approx(accuracy, abs=1e-9)
        assert of_class["balanced_accuracy"][name] == pytest.approx(sum(of_class[name]) / 3)
    assert "accuracy by class, among these: " in printed


def test_entries_are_added_to_the_results(run_dir, folder, classes, tmp_path):
    out = tmp_path / "out.json"
    out.write_text(json.dumps({"clean_accuracy": 0.5, "image_folders": {"another": {"num_images": 3}}}))
    arguments = ["--run", str(run_dir), "--classes", str(classes), "--out", str(out)]
    assert main([*arguments, "--images", str(folder)]) == 0
    results = json.loads(out.read_text())
    assert results["clean_accuracy"] == 0.5
    assert results["image_folders"].keys() == {"another", str(folder)}


def test_a_later_evaluation_keeps_the_entries(run_dir, folder, classes, tmp_path):
    out = tmp_path / "out.json"
    arguments = ["--run", str(run_dir), "--out", str(out)]
    assert main([*arguments, "--images", str(folder), "--classes", str(classes)]) == 0
    entries = json.loads(out.read_text())["image_folders"]
    assert main(arguments) == 0
    results = json.loads(out.read_text())
    assert results["image_folders"] == entries
    assert results["num_images"] == 4
    assert main([*arguments, "--images", str(folder), "--classes", str(classes), "--eval.num_bins", "7"]) == 0
    again = json.loads(out.read_text())
    assert again["clean_accuracy"] == results["clean_accuracy"]
    assert again["image_folders"][str(folder)]["num_bins"] == 7
    without = tmp_path / "without.json"
    without.write_text('{"image_folders": []}')
    assert main([*arguments[:-1], str(without)]) == 0
    assert "image_folders" not in json.loads(without.read_text())


def test_results_that_cannot_be_read_are_not_replaced(run_dir, folder, classes, tmp_path, monkeypatch):
    """Such as those of another user, or on a disk that fails. It is said before the measurement."""
    out, read_bytes = tmp_path / "out.json", Path.read_bytes
    out.write_text('{"clean_accuracy": 0.5}')

    def fails(path: Path) -> bytes:
        if path == out:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_bytes(path)

    def measures(*arguments, **options) -> None:
        raise AssertionError("it measures first")

    monkeypatch.setattr(Path, "read_bytes", fails)
    monkeypatch.setattr(run_module, "load_run", measures)
    for arguments in ([], ["--images", str(folder), "--classes", str(classes)]):
        with pytest.raises(InputError) as error:
            main(["--run", str(run_dir), "--out", str(out), *arguments])
        assert str(error.value) == (
            f"out: {out} cannot be read (Input/output error), and its results would be lost; name another --out."
        )
        assert out.read_text() == '{"clean_accuracy": 0.5}'


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100_000])
def test_damaged_results_get_no_entries_and_are_replaced_with_a_warning(
    text, run_dir, folder, classes, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out.json"
    out.write_text(text, encoding="latin-1")
    before, arguments = out.read_bytes(), ["--run", str(run_dir), "--out", str(out)]
    with pytest.raises(
        InputError, match=r"out\.json is damaged \(it is not JSON with an object at the top\); remove it"
    ):
        main([*arguments, "--images", str(folder), "--classes", str(classes)])
    assert out.read_bytes() == before
    monkeypatch.setattr(run_module, "evaluate_run", lambda *arguments: {"steps": 12})
    monkeypatch.setattr(shown, "print_results", lambda *arguments, **options: None)
    assert main(arguments) == 0
    assert "out.json: is damaged (it is not JSON with an object at the top). It will be replaced." in " ".join(
        capsys.readouterr().out.split()
    )
    assert json.loads(out.read_text()) == {"steps": 12}


def test_the_first_process_alone_warns_of_damaged_results(run_dir, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.json"
    out.write_text("{")
    monkeypatch.setattr(run_module, "evaluate_run", lambda *arguments: {"steps": 12})
    monkeypatch.setattr(shown, "print_results", lambda *arguments, **options: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, warns in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        assert main(["--run", str(run_dir), "--out", str(out)]) == 0
        assert ("It will be replaced." in " ".join(capsys.readouterr().out.split())) == warns
    assert json.loads(out.read_text()) == {"steps": 12}


def test_numbers_of_other_steps_are_left_out(run_dir, folder, classes, tmp_path, capsys):
    out, steps = tmp_path / "out.json", 12
    images = ["--images", str(folder), "--classes", str(classes)]
    kept = {"now": {"steps": steps}, "unsaid": {"num_images": 3}}
    before = {"clean_accuracy": 0.5, "steps": steps + 1, "image_folders": {"old": {"steps": steps + 1}} | kept}
    arguments = ["--run", str(run_dir), "--out", str(out)]
    out.write_text(json.dumps(before))
    assert main([*arguments, *images]) == 0
    results = json.loads(out.read_text())
    assert results.keys() == {"image_folders"}
    assert results["image_folders"].keys() == {*kept, str(folder)}
    assert results["image_folders"][str(folder)]["steps"] == steps
    printed = " ".join(capsys.readouterr().out.split())
    assert f"its other results are of step {steps + 1}, not {steps}. They are left out." in printed
    assert f"image_folders has numbers of other steps than {steps}: old. They are left out." in printed
    out.write_text(json.dumps(before))
    assert main(arguments) == 0
    results = json.loads(out.read_text())
    assert (results["steps"], results["image_folders"]) == (steps, kept)
    assert main([*arguments, *images]) == 0
    assert json.loads(out.read_text()).items() > {"steps": steps, "clean_accuracy": results["clean_accuracy"]}.items()


USED = ("batch_size", "test_time_flip", "weights", "num_bins", "binning", "rse_draws", "forward")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--eval.batch_norm", "adapt"], "eval.batch_norm"),
        (["--eval.ood=digits", "--eval.num_images", "3"], "eval.ood, eval.num_images"),
        (["--eval.fourier", "false"], "eval.fourier"),
        (["--eval.pooling", "per_corruption"], "eval.pooling"),
    ],
)
def test_fields_without_effect_on_a_folder_are_refused(arguments, named, run_dir, folder):
    with pytest.raises(InputError) as error:
        main(["--run", str(run_dir), "--images", str(folder), *arguments])
    known = ", ".join(f"eval.{name}" for name in USED)
    assert str(error.value) == (
        f"images: got {named} with --images, which does not use it; expected of that section only {known}. Leave it"
        " out."
    )


def test_a_folder_may_be_measured_with_all_fields_that_count_and_a_file_of_any(run_dir, folder, classes, tmp_path):
    """Two draws of the test-time ensemble are not those of ten, and so on: each field that is accepted is used."""
    (tmp_path / "fields.yaml").write_text("eval: {num_images: 3, corruption_set: cbar, batch_norm: adapt}\n")
    arguments = ["--run", str(run_dir), "--images", str(folder), "--classes", str(classes)]
    fields = ["--eval.batch_size", "9", "--eval.test_time_flip", "true", "--eval.weights", "last"]
    fields += ["--eval.binning", "adaptive", "--eval.rse_draws", "2", "--eval.forward", "fast"]
    out = tmp_path / "out.json"
    assert main([*arguments, *fields, "--config", str(tmp_path / "fields.yaml"), "--out", str(out)]) == 0
    entry = json.loads(out.read_text())["image_folders"][str(folder)]
    assert (entry["num_images"], entry["test_time_flip"], entry["binning"]) == (48, True, "adaptive")
    assert "forward" in entry


def test_unreadable_files_are_left_out_and_counted(run_dir, folder, classes, tmp_path, capsys):
    first, second = sorted((folder / "two").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:60])
    second.write_text("no image")
    out = tmp_path / "out.json"
    arguments = ["--run", str(run_dir), "--images", str(folder), "--classes", str(classes), "--out", str(out)]
    assert main([*arguments, "--eval.num_bins", str(BINS)]) == 0
    entry = json.loads(out.read_text())["image_folders"][str(folder)]
    assert (entry["num_images"], entry["num_unreadable"]) == (46, 2)
    assert "warning: 2 image files cannot be read; they are left out." in capsys.readouterr().out
    for path in (first, second):
        path.unlink()
    expected = plain_measures(run_dir, folder)["own_classes"]
    assert entry["own_classes"]["accuracy"] == pytest.approx(expected[0], abs=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_cost_the_measures_that_need_them(bad, capsys):
    """Two of four images have such a logit, of which one is of a class that the folder has."""
    logits = torch.tensor([[3.0, 1, 0], [0, 2, bad], [0, 1, 2], [2, bad, 0]])
    for rows, counts, own in (([0, 1, 2, 3], 2, None), ([0, 1, 2], 1, 1 / 3), ([0, 2], 0, 1 / 2)):
        labels = np.array([0, 0, 0, 1])[rows]
        measured = measure_images(logits[rows], labels, np.array([0, 1]))
        entry = summarise_images(measured, labels, ["a", "b"], 0, EvalConfig())
        assert entry["own_classes"]["accuracy"] == (own and pytest.approx(own))
        assert (entry["own_classes"]["rms_calibration_error"] is None) == (own is None)
        assert (entry["all_classes"]["accuracy"] is None) == (counts > 0)
        assert (entry["all_classes"]["rms_calibration_error"] is None) == (counts > 0)
        said = " ".join(capsys.readouterr().out.split())
        found = f"logits are not finite for {counts} image{'s' * (counts > 1)}. The measures that need them are null."
        assert (found in said) == (counts > 0)
        print_images("folder", entry, 3)
        said = " ".join(capsys.readouterr().out.split())
        assert ("among all 3 classes - %, RMS calibration error - %" in said) == (counts > 0)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.json", '{"a": "7", "b": "2"}'),
        ("classes.yaml", "# folders\na: 7\nb: '2'\n"),
        ("classes.yml", "{a: 7, b: 2}"),
        ("classes.csv", "folder,class\na,7\n\nb, 2\n"),
        ("classes.CSV", '\ufeffa,7\r\n"b","2"\r\n'),
    ],
)
def test_mappings_of_each_kind(file, text, tmp_path):
    (tmp_path / file).write_text(text)
    assert read_mapping(tmp_path / file) == {"a": "7", "b": "2"}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes.txt", "a 7", "classes.txt; expected a file named *.json, *.yaml, *.yml, *.csv."),
        ("classes.json", '{"a": "7"', "classes.json: cannot be read as JSON ("),
        ("classes.json", "[" * 100_000, "classes.json: cannot be read as JSON ("),
        ("classes.json", '["a"]', "classes.json: holds a list; expected a class name for each folder name."),
        ("classes.json", '{"a": ["7"]}', "got 'a': ['7']; expected a folder name and a class name."),
        ("classes.yaml", "a: true", "got 'a': True; expected a folder name"),
        ("classes.yaml", "a: [", "classes.yaml: cannot be read as YAML ("),
        ("classes.yaml", "!!python/object/apply:os.system ['true']", "classes.yaml: line 1 has the tag"),
        ("classes.csv", "a,7\nb", "classes.csv: cannot be read as CSV (line 2 has 1 column, not 2)."),
        ("classes.csv", "a,7\na,8", "(line 2 names folder 'a' again)"),
        ("classes.csv", "a,\x00" + "x" * 200_000, "classes.csv: cannot be read as CSV ("),
        ("classes.json", b"\xff\xfe\xff", "classes.json: cannot be read as JSON ("),
        ("classes.json", None, "classes.json: cannot be read (No such file or directory)"),
    ],
)
def test_a_mapping_that_is_none_is_one_clear_line(file, text, message, tmp_path):
    if text is not None:
        (tmp_path / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        read_mapping(tmp_path / file)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--images", "FOLDER"],
            "3 of 4 class folders do not match any of the model's 10 classes: deux, seven, two; expect",
        ),
        (["--images", "FOLDER", "--classes", "OTHER"], "Did you mean '7'?"),
        (["--images", "nowhere"], "nowhere: no such folder; expected one with CLASS/IMAGE in it, IMAGE one of *.jpg"),
        (["--images", "FOLDER/seven"], "seven: has no class folders; expected CLASS/IMAGE in it, IMAGE one of *.jpg"),
        (["--images", "EMPTY"], "1 of 1 class folders hold no image: 3; expected CLASS/IMAGE in it"),
        (["--classes", "OTHER"], "expected none without --images DIR"),
        (
            ["--images", "FOLDER", "--corrupted", "set"],
            "expected it with --run or --weights, without --corrupted",
        ),
    ],
)
def test_the_command_names_what_it_cannot_use(arguments, message, run_dir, folder, tmp_path):
    (tmp_path / "empty" / "3").mkdir(parents=True)
    (tmp_path / "other.csv").write_text("seven,77\ndeux,2\ntwo,2\n")
    places = {"FOLDER": str(folder), "EMPTY": str(tmp_path / "empty"), "OTHER": str(tmp_path / "other.csv")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    with pytest.raises(InputError) as error:
        main(["--run", str(run_dir), *arguments])
    assert message in str(error.value)
    assert "\n" not in str(error.value)

"""Results of `evaluate --weights`: a label of their own, and nothing that only a run of fastmagn's could say."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from fastmagn import report
from fastmagn.config.text import plain
from fastmagn.errors import InputError
from fastmagn.evaluate import parse_arguments
from fastmagn.reporting.document import make_report, to_data, to_text
from fastmagn.reporting.gallery import gallery, images_loader
from fastmagn.reporting.mistakes import mistakes
from fastmagn.reporting.provenance import command, runs_table
from fastmagn.reporting.runs import read_run
from tests.helpers.report_folders import write_logits, write_run
from tests.helpers.run_folders import make_run

CHANNELS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


def measured(file: Path, folder: Path, clean: float = 0.9, fields: dict | None = None, **results) -> Path:
    """The results that an evaluation of the weights `file` leaves in `folder`."""
    fields = {"data.dir": "images", "run_dir": "runs/default"} | (fields or {})
    run = write_run(folder / "made", method=file.stem, clean=clean, fields=fields)
    whole = json.loads((run / "results.json").read_text())
    del whole["images_per_s"], whole["steps"]
    whole |= {"weights_file": str(file), "normalisation": CHANNELS} | results
    out = folder / f"{file.stem}.evaluation.json"
    out.write_text(json.dumps(whole))
    return out


def test_weights_named_like_a_method_are_not_that_method(tmp_path):
    own = write_run(tmp_path / "own", 0.7, method="magn")
    results = [measured(Path(f"{name}.pth"), tmp_path / name) for name in ("standard", "augmix", "rse")]
    whole = make_report([own, *results])
    (data_set,) = whole.data_sets
    labels = [item.label for item in data_set.experiments]
    assert labels == ["MAGN", "augmix (weights)", "rse (weights)", "standard (weights)"]
    assert not any("over standard" in line for line in data_set.headlines)
    beside = [cell for table in data_set.tables for row in table.rows for cell in row.cells if cell and cell.paper]
    assert {cell.mean for cell in beside} <= {0.9, 0.7, 0.05, 0.1}
    weights = [item for item in data_set.experiments if item.label != "MAGN"]
    assert [item.paper("clean") for item in weights] == [None] * 3
    header, *rows = runs_table(weights)
    assert {row[header.index("epochs")] for row in rows} == {row[header.index("seed")] for row in rows} == {"–"}
    assert any(
        line.startswith("Epochs: 30 (") and "not known of weights from a file (" in line for line in data_set.unlike
    )
    assert not any(line.startswith("Seeds") for line in data_set.unlike)
    shown = gallery(weights[0].runs[0], images_loader())
    assert (shown.pictures, shown.note) == (
        (),
        "Views are not shown: how weights from a file were trained is not known.",
    )
    assert "fastmagn.train --method augmix" not in to_text(whole)
    assert to_data(whole)["data_sets"][0]["runs"][1]["weights_file"] == "augmix.pth"


def test_an_entry_of_robustbench_says_nothing_that_is_not_known(tmp_path):
    results = measured(Path("rse.pth"), tmp_path / "w", fields={"eval.rse_draws": 10})
    out = tmp_path / "bench"
    assert report.main([str(results), "--out", str(out), "--format", "robustbench"]) == 0
    (file,) = out.glob("model_info/cifar10/corruptions/*.json")
    info = json.loads(file.read_text())
    assert file.stem == "rse_resnet18"
    assert (info["additional_data"], info["number_forward_passes"], info["name"]) == (None, 1, "rse (weights)")


@pytest.mark.parametrize("is_relative", [True, False])
def test_two_files_of_one_name_are_two(tmp_path, is_relative):
    """Whether each was measured in its own folder, by its bare name, or from elsewhere."""
    results = []
    for folder, clean in (("a", 0.9), ("b", 0.8)):
        file = tmp_path / folder / "checkpoint.pth"
        results.append(measured(Path(file.name) if is_relative else file, tmp_path / folder, clean))
        file.write_bytes(b"")
    whole = make_report(results)
    assert not any("same configuration" in line for line in whole.warnings)
    (data_set,) = whole.data_sets
    found = {item.label: item.runs[0].clean_accuracy for item in data_set.experiments}
    assert found == {
        "checkpoint (weights a/checkpoint.pth)": 0.9,
        "checkpoint (weights b/checkpoint.pth)": 0.8,
    }


def test_a_file_beside_the_results_of_another_is_not_taken_for_it(tmp_path):
    """Both results lie beside b/checkpoint.pth, and those of a/checkpoint.pth name it by its absolute path."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "checkpoint.pth").write_bytes(b"")
    results = [measured(tmp_path / "b" / "checkpoint.pth", tmp_path / "b", 0.8)]
    results.append(results[0].with_name("other.json"))
    of_a = json.loads(results[0].read_text()) | {
        "weights_file": str(tmp_path / "a" / "checkpoint.pth"),
        "clean_accuracy": 0.9,
    }
    results[1].write_text(json.dumps(of_a))
    whole = make_report(results)
    assert not any("same configuration" in line for line in whole.warnings)
    found = {item.label: item.runs[0].clean_accuracy for item in whole.data_sets[0].experiments}
    assert found == {
        "checkpoint (weights a/checkpoint.pth)": 0.9,
        "checkpoint (weights b/checkpoint.pth)": 0.8,
    }


def test_one_file_measured_twice_is_a_copy_unless_it_was_normalised_otherwise(tmp_path):
    file = tmp_path / "w.pth"
    other = {"mean": [0.0] * 3, "std": [1.0] * 3}
    results = [
        measured(file, tmp_path / "one"),
        measured(file, tmp_path / "copy"),
        measured(file, tmp_path / "other", normalisation=other),
    ]
    whole = make_report(results)
    (data_set,) = whole.data_sets
    assert sorted(item.label for item in data_set.experiments) in (
        ["w (weights)", "w (weights) (mean 0 0 0, std 1 1 1)"],
        ["w (weights)", "w (weights) (mean 0.5 0.5 0.5, std 0.25 0.25 0.25)"],
    )
    assert sum("has the same configuration" in line for line in whole.warnings) == 1


def test_the_command_measures_the_weights_again(tmp_path):
    file = tmp_path / "a folder" / "augmix.pth"
    run, _ = read_run(measured(file, tmp_path / "w", fields={"eval.num_images": 10, "model.name": "wideresnet40_2"}))
    words = shlex.split(command(run))
    assert words[:5] == ["python", "-m", "fastmagn.evaluate", "--weights", str(file)]
    assert words[words.index("--data.image_size") + 1] == "224", "a file of fastmagn's export may say another size"
    assert "--data.eval_resize_px" not in words
    own, config = parse_arguments(words[3:])
    assert (own.weights, own.mean, own.std) == (file, (0.5,) * 3, (0.25,) * 3)
    assert (config.method, config.eval.num_images, config.model.name) == ("augmix", 10, "wideresnet40_2")
    assert str(config.data.dir) == "images"


def test_the_command_for_a_checkpoint_says_what_its_run_may_say_otherwise(tmp_path):
    file = tmp_path / "run" / "checkpoints" / "step-00000012.pt"
    run, _ = read_run(measured(file, tmp_path / "w"))
    make_run(tmp_path / "run", "--data.name", "hf", "--data.test_shards", "b/*.parquet", "--data.image_size", "96")
    shutil.move(file.with_name("last.pt"), file)
    config = parse_arguments(shlex.split(command(run))[3:])[1]
    assert plain(config)["data"] == run.config["data"]


def test_the_worst_errors_are_from_the_logits_beside_the_results(tmp_path):
    """`evaluate --weights F --save_logits --out O.json` stores them in O/logits."""
    results = measured(tmp_path / "w.pth", tmp_path / "w", fields={"data.name": "digits"})
    run, _ = read_run(results)
    note = mistakes(run, images_loader()).note
    assert note.endswith(f" --save_logits --out {results} stores them.")
    assert "fastmagn.evaluate --weights " in note
    assert "--run" not in note
    write_logits(results.parent / "made")
    (results.parent / "made" / "logits").rename(results.with_suffix("").parent / "later")
    whole = json.loads((results.parent / "made" / "results.json").read_text())
    results.write_text(json.dumps(whole | {"weights_file": str(tmp_path / "w.pth"), "normalisation": CHANNELS}))
    results.with_suffix("").mkdir()
    (results.parent / "later").rename(results.with_suffix("") / "logits")
    run, _ = read_run(results)
    found = mistakes(run, images_loader())
    assert not found.note
    assert len(found.examples) == 12


@pytest.mark.parametrize("change", [{"weights_file": 3}, {"normalisation": {"mean": [0.5]}}, {"normalisation": [1]}])
def test_damaged_results_of_weights_are_one_line(tmp_path, change):
    with pytest.raises(
        InputError, match=r"evaluation\.json: weights_file, normalisation: got .*; expected a file's name"
    ):
        read_run(measured(Path("w.pth"), tmp_path / "w", **change))

"""Reading run folders, grouping seeds: what is whole is reported, what is not is one clear line."""

import errno
import io
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from fastmagn.config.command_line import parse_config
from fastmagn.config.text import plain
from fastmagn.corruptions.sets import CIFAR_CBAR
from fastmagn.errors import InputError
from fastmagn.reporting.document import command
from fastmagn.reporting.experiments import common_set, group_experiments
from fastmagn.reporting.provenance import runs_table
from fastmagn.reporting.runs import read_run, read_runs
from fastmagn.reporting.tables import make_tables
from tests.helpers.report_folders import C19, of_classes, rewrite, with_protocols


def broken(change):
    return lambda folder: rewrite(folder, change)


def set_value(*keys, value):
    def change(results):
        for key in keys[:-1]:
            results = results[key]
        results[keys[-1]] = value

    return broken(change)


DAMAGE = {
    "no folder": (shutil.rmtree, "run: no such folder; expected the folder of a run. Left out."),
    "unfinished": (
        lambda folder: (folder / "results.json").unlink(),
        "run: has no results.json: training has not ended. To resume it: `python -m fastmagn.train --config ",
    ),
    "not a run": (
        lambda folder: [(folder / name).unlink() for name in ("results.json", "config.yaml")],
        "run: is not a run folder: it has no config.yaml. Give one that fastmagn.train made.",
    ),
    "half a file": (
        lambda folder: (folder / "results.json").write_text((folder / "results.json").read_text()[:200]),
        "results.json: is damaged (",
    ),
    "not text": (lambda folder: (folder / "results.json").write_bytes(b"\xff\xfe\x00"), "results.json: is damaged ("),
    "not an object": (lambda folder: (folder / "results.json").write_text("[]"), "is damaged (it holds a list"),
    "NaN": (
        set_value("clean_accuracy", value=float("nan")),
        "is damaged (it holds NaN). To measure the run again: `python -m fastmagn.train --config ",
    ),
    "no method": (broken(lambda results: results["config"].pop("method")), "lacks config.method; expected what"),
    "no section": (broken(lambda results: results["config"].pop("data")), "lacks config.data.name; expected what"),
    "of stored logits": (
        broken(lambda results: results.update(config={"eval": results["config"]["eval"]})),
        "is an evaluation of stored logits, which names no method and no data set; expected one of a run or of"
        " weights.",
    ),
    "no accuracy": (broken(lambda results: results.pop("clean_accuracy")), "lacks clean_accuracy;"),
    "per cent": (set_value("clean_accuracy", value=94.2), "clean_accuracy: got 94.2; expected a fraction in 0..1."),
    "a bool": (set_value("clean_accuracy", value=True), "clean_accuracy: got True; expected a float."),
    "no corruption": (set_value("corruption_accuracy", value={}), "corruption_accuracy: got none; expected at least"),
    "a corruption of no name": (
        broken(lambda results: results["corruption_accuracy"].update({"a" * 101: [0.5] * 5})),
        "expected names of 1..100 characters.",
    ),
    "severities that are all": (
        broken(lambda results: results.update(severities={"fog": [1, 2, 3, 4, 5]})),
        "severities.fog: got [1, 2, 3, 4, 5]; expected some of 1 to 5, not all.",
    ),
    "four severities": (
        set_value("corruption_accuracy", "fog", value=[0.5] * 4),
        "corruption_accuracy.fog: got [0.5, 0.5, 0.5, 0.5]; expected 5 fractions, of severities 1 to 5.",
    ),
    "another mCA": (set_value("mca", "c18", value=0.9), "mca.c18: got 0.9; corruption_accuracy gives 0.800000."),
    "calibration": (
        set_value("rms_calibration_error", "corrupt", value=-0.1),
        "rms_calibration_error.corrupt: got -0.1",
    ),
    "no bins": (
        broken(lambda results: results["rms_calibration_error"].pop("num_bins")),
        "rms_calibration_error.num_bins",
    ),
    "an accuracy that was not finite": (
        set_value("corruption_accuracy", "fog", value=[0.5, None, 0.5, 0.5, 0.5]),
        "results.json: has no accuracy for fog: logits were NaN or infinite there.",
    ),
    "a clean accuracy that was not finite": (
        set_value("clean_accuracy", value=None),
        "results.json: has no accuracy for clean: logits were NaN or infinite there.",
    ),
    "a subset": (set_value("subset", value="first"), "lacks subset.chosen; expected what"),
    "a subset without its seed": (set_value("subset", value={"chosen": "by class"}), "lacks subset.seed; expected"),
    "bins": (
        set_value("reliability", "clean", "count", value=[1, 2]),
        "reliability.clean: got lists of [2, 4, 4]; expected 4 bins in each.",
    ),
    "flips of an unknown sequence": (
        lambda folder: rewrite(
            with_protocols(folder), lambda results: results["perturbations"]["flip_probability"].update(rain=0.5)
        ),
        "perturbations: is damaged; expected what an evaluation writes. Measure it again.",
    ),
    "no flips": (set_value("perturbations", value={"flip_probability": []}), "perturbations: is damaged;"),
    "a map that is not square": (
        lambda folder: rewrite(with_protocols(folder), lambda results: results["fourier"]["error"].pop()),
        "fourier: is damaged;",
    ),
    "a map of text": (
        lambda folder: rewrite(
            with_protocols(folder), lambda results: results["fourier"]["error"][3].__setitem__(3, "<b>")
        ),
        "fourier: is damaged;",
    ),
    "adapted per cent": (
        lambda folder: rewrite(
            with_protocols(folder), lambda results: results["adapted_batch_norm"].update(clean_accuracy=94.2)
        ),
        "adapted_batch_norm: is damaged;",
    ),
    "adapted list": (set_value("adapted_batch_norm", value=[1]), "adapted_batch_norm: is damaged;"),
    "a class without a number": (
        lambda folder: rewrite(folder, lambda results: results.update(class_accuracy=of_classes(clean=[0.5]))),
        "is damaged (class_accuracy has lists of [2, 2, 1, 2] classes (class_names, num_images, clean, corrupt))",
    ),
    "a class of text": (
        lambda folder: rewrite(folder, lambda results: results.update(class_accuracy=of_classes(corrupt=["<b>", 1]))),
        "is damaged (class_accuracy.corrupt is \"['<b>', 1]\", not a list of fractions in 0..1 or null)",
    ),
    "half of the classes' section": (set_value("class_accuracy", value={"clean": [1]}), "lacks class_accuracy.corrup"),
    "classes without names": (
        lambda folder: rewrite(folder, lambda results: results.update(class_accuracy=of_classes(class_names=3))),
        "is damaged (class_accuracy.class_names is '3', not a list of texts)",
    ),
    "empty bins": (set_value("reliability", "corrupt", "count", value=[0] * 4), "corrupt.count: got no predictions"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_one_line_and_the_others_are_read(name, fake_run):
    damage, message = DAMAGE[name]
    good, bad = fake_run("good"), fake_run("run", seed=1)
    damage(bad)
    runs, warnings = read_runs([bad, good])
    assert [run.path for run in runs] == [good]
    (warning,) = warnings
    assert message in warning
    assert str(bad) in warning
    assert warning.endswith("Left out.")
    assert "\n" not in warning
    with pytest.raises(InputError, match=r"^RUN: .*Left out\. Nothing is left to report\.$"):
        read_runs([bad])


def test_a_file_that_is_no_results_file_is_refused(tmp_path, fake_run):
    (tmp_path / "notes.txt").write_text("mine")
    _, warnings = read_runs([tmp_path / "notes.txt", fake_run("run")])
    assert "notes.txt: is a file; expected a run folder, or a results file (.json) in one." in warnings[0]


def test_an_evaluation_can_be_reported_instead_of_the_runs_own_results(fake_run):
    folder = fake_run("run", clean=0.9)
    results = json.loads((folder / "results.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(results | {"clean_accuracy": 0.5}))
    run, _ = read_run(folder / "evaluation.json")
    assert run.clean_accuracy == 0.5
    assert run.folder == folder
    assert len(run.epochs) == 3


def test_of_two_results_of_one_run_those_with_more_measures_stay(fake_run):
    folder = fake_run("run", clean=0.9)
    file = folder / "evaluation.json"
    shutil.copy(folder / "results.json", file)
    before = file.read_text()
    with_protocols(folder)
    set_value("config", "eval", "fourier", value=True)(folder)
    richer = (folder / "results.json").read_text()
    for own, evaluated, kept in ((before, richer, file), (richer, before, folder), (before, before, folder)):
        (folder / "results.json").write_text(own)
        file.write_text(evaluated)
        runs, _ = read_runs([folder, file])
        (experiment,), (warning,) = group_experiments(runs)
        (run,) = experiment.runs
        assert run.path == kept
        assert run.images_per_s == 1234.5
        assert (run.protocols.fourier is not None) == (richer in (own, evaluated))
        (left,) = {folder, file} - {kept}
        assert warning.startswith(f"{left}: has the same configuration and seed 0 as {kept};")


def test_an_evaluation_of_a_run_that_has_not_ended_is_said_to_be_one(fake_run, tmp_path):
    folder = fake_run("run")
    file = (folder / "results.json").rename(folder / "evaluation.json")
    (run,), (warning,) = read_runs([file])
    assert run.path == file
    assert warning == f"{file}: is of a run whose training or evaluation has not ended. It is shown nevertheless."
    shutil.copy(file, tmp_path / "elsewhere.json")
    assert read_runs([tmp_path / "elsewhere.json"])[1] == []


@pytest.mark.parametrize("other", [set_value("steps", value=7), set_value("config", "data", "dir", value="elsewhere")])
def test_a_fuller_evaluation_of_other_weights_or_images_replaces_no_run(other, fake_run):
    folder = fake_run("run")
    set_value("steps", value=30)(folder)
    own = (folder / "results.json").read_text()
    other(with_protocols(folder))
    (folder / "evaluation.json").write_text((folder / "results.json").read_text())
    (folder / "results.json").write_text(own)
    (experiment,), _ = group_experiments(read_runs([folder, folder / "evaluation.json"])[0])
    assert [run.path for run in experiment.runs] == [folder]


def test_the_fuller_copy_of_another_folder_replaces_no_run(fake_run):
    first, copy = fake_run("a"), with_protocols(fake_run("b"))
    (experiment,), _ = group_experiments(read_runs([first, copy])[0])
    assert [run.path for run in experiment.runs] == [first]


def test_an_evaluation_that_was_not_named_is_a_line(fake_run):
    first, second = fake_run("a"), fake_run("b", seed=1)
    for folder in (first, second):
        shutil.copy(folder / "results.json", folder / "evaluation.json")
    files = [folder / "evaluation.json" for folder in (first, second)]
    assert read_runs([*files])[1] == []
    assert read_runs([first, files[0]])[1] == []
    assert read_runs([first])[1] == [
        f"{files[0]}, a measurement of its own, is not in this report; name it to have it."
    ]
    assert read_runs([first, second])[1] == [
        f"{files[0]}, {files[1]}, measurements of their own, are not in this report; name them to have them."
    ]
    files[0].write_text('{"image_folders": {}}')  # of `evaluate --images`, which no report shows
    files[1].write_text("{")
    assert read_runs([first, second])[1] == []


@pytest.fixture
def failing(monkeypatch):
    """failing(path, number): every look at what lies at `path` or below fails with this error of the system."""
    found, stat, lstat, opened = {}, os.stat, os.lstat, io.open

    def guarded(call):
        def look(path, *args, **kwargs):
            for place, number in found.items():
                if not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(place):
                    raise OSError(number, os.strerror(number), str(path))
            return call(path, *args, **kwargs)

        return look

    monkeypatch.setattr(os, "stat", guarded(stat))
    monkeypatch.setattr(os, "lstat", guarded(lstat))
    monkeypatch.setattr(io, "open", guarded(opened))
    return found.__setitem__


FAILURES = [errno.EACCES, errno.ESTALE, errno.EIO]


@pytest.mark.parametrize("number", FAILURES, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["", "results.json"])
def test_a_run_that_cannot_be_looked_at_is_left_out(name, number, fake_run, failing):
    good, bad = fake_run("good"), fake_run("bad", seed=1)
    failing(bad, number)
    runs, warnings = read_runs([bad / name, good])
    assert [run.path for run in runs] == [good]
    assert warnings == [f"{bad / name}: cannot be read ({os.strerror(number)}). Left out."]


def test_a_name_that_is_too_long_is_left_out(fake_run, tmp_path):
    good, long = fake_run("good"), tmp_path / ("x" * 300)
    runs, warnings = read_runs([long, good])
    assert [run.path for run in runs] == [good]
    assert warnings == [f"{long}: cannot be read (File name too long). Left out."]
    with pytest.raises(InputError, match=r"File name too long\)\. Left out\. Nothing is left to report\.$"):
        read_runs([long])


@pytest.mark.parametrize("number", FAILURES, ids=errno.errorcode.get)
def test_parts_that_cannot_be_looked_at_cost_those_parts_only(number, fake_run, failing):
    folder = fake_run("run")
    shutil.copy(folder / "results.json", folder / "evaluation.json")
    failing(folder / "evaluation.json", number)
    failing(folder / "metrics.jsonl", number)
    (run,), (warning,) = read_runs([folder])
    assert run.mca(C19) == pytest.approx(0.8)
    assert run.epochs == ()
    assert os.strerror(number) in warning
    assert warning.endswith("the run is reported without its training curve.")


def test_the_same_folder_twice_counts_once(fake_run, tmp_path, monkeypatch):
    folder = fake_run("run")
    monkeypatch.chdir(tmp_path)
    runs, warnings = read_runs([folder, folder / "..", folder.relative_to(tmp_path), folder / "results.json"])
    assert len(runs) == 1
    assert f"run: given twice, first as {folder}; counted once." in warnings[1]
    assert f"results.json: given twice, first as {folder}; counted once." in warnings[2]


def test_a_copied_run_counts_once(fake_run):
    a, b, c, d, e = fake_run("a"), fake_run("b"), fake_run("c", seed=1), fake_run("d"), fake_run("e", seed=1)
    runs, _ = read_runs([a, b, c, d, e])
    (experiment,), warnings = group_experiments(runs)
    assert [run.path.name for run in experiment.runs] == ["a", "c"]
    spread = "a copy would make the spread too small. Left out."
    assert warnings == [
        f"{b}, {d}: have the same configuration and seed 0 as {a}; {spread}",
        f"{e}: has the same configuration and seed 1 as {c}; {spread}",
    ]


@pytest.mark.parametrize("line", ["{", "[]", '{"epoch": 1, "loss": NaN, "train_accuracy": 0}', '{"epoch": 1}', "null"])
def test_a_damaged_log_costs_the_training_curve_only(fake_run, line):
    folder = fake_run("run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    runs, warnings = read_runs([folder])
    assert runs[0].epochs == ()
    assert "metrics.jsonl: line 4 is damaged (" in warnings[0]
    assert "reported without its training curve." in warnings[0]


def test_seeds_are_one_experiment_with_numpys_mean_and_deviation(fake_run):
    cleans = [0.91, 0.935, 0.9, 0.94]
    paths = [fake_run(f"s{seed}", seed=seed, clean=clean) for seed, clean in enumerate(cleans)]
    runs, _ = read_runs(reversed(paths))
    (experiment,), warnings = group_experiments(runs)
    assert not warnings
    assert [run.seed for run in experiment.runs] == [0, 1, 2, 3]
    statistic = experiment.statistic(lambda run: run.clean_accuracy)
    assert statistic.mean == pytest.approx(np.mean(cleans), abs=1e-15)
    assert statistic.sd == pytest.approx(np.std(cleans, ddof=1), abs=1e-15)
    assert statistic.num_runs == 4


def test_bookkeeping_makes_no_experiment_and_everything_else_does(fake_run):
    same = [
        fake_run("a", seed=0),
        fake_run("b", seed=1, fields={"device": "cuda", "data.dir": "elsewhere", "eval.cache_dir": "x"}),
        fake_run("f", seed=2, fields={"eval.fourier": True, "eval.batch_norm": "adapt", "eval.perturbations": True}),
        fake_run("g", seed=3, fields={"train.keep_checkpoints": 5, "train.deterministic": True}),
        fake_run("h", seed=4, fields={"data.num_workers": 4, "data.source": "pillow", "augment.backend": "pil"}),
    ]
    others = [
        fake_run("c", fields={"train.epochs": 7}),
        fake_run("d", fields={"train.epochs": 7, "optim.lr": 0.2}),
        fake_run("e", fields={"train.epochs": 8, "optim.lr": 0.3, "train.batch_size": 3}),
        fake_run("i", fields={"augment.backend": "kornia"}),
    ]
    runs, _ = read_runs([*others, *same])
    experiments, _ = group_experiments(runs)
    labels = {experiment.runs[0].path.name: experiment.label for experiment in experiments}
    assert labels == {
        "a": "Standard",
        "c": "Standard (epochs 7)",
        "d": "Standard (epochs 7, lr 0.2)",
        "e": "Standard (e)",
        "i": "Standard (backend kornia)",
    }
    assert len(experiments[0].runs) == 5


def record(folder, version, quality):
    results = json.loads((folder / "results.json").read_text())
    results["corrupted_as"] = {"published": "some", "version": version, "jpeg_quality": quality}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_runs_measured_by_other_versions_of_the_corruptions_are_kept_apart(fake_run):
    """Older results do not say their version, which is 1: they and those that say 1 are seeds of one experiment."""
    first = [fake_run("a", seed=0), record(fake_run("b", seed=1), 1, None)]
    second = [record(fake_run("c", seed=0), 2, 85), record(fake_run("d", seed=1), 2, None)]
    runs, _ = read_runs([*first, *second])
    experiments, warnings = group_experiments(runs)
    assert not warnings
    found = {experiment.label: [run.path.name for run in experiment.runs] for experiment in experiments}
    assert found == {
        "Standard": ["a", "b"],
        "Standard (corruptions of version 2, JPEG 85)": ["c"],
        "Standard (corruptions of version 2, no JPEG)": ["d"],
    }


def test_the_order_of_the_arguments_does_not_matter(fake_run):
    paths = [fake_run(f"{m}{s}", method=m, seed=s) for m in ("zebra", "magn", "standard", "ape") for s in (1, 0)]
    runs, _ = read_runs(paths)
    backwards, _ = read_runs(reversed(paths))
    experiments, _ = group_experiments(runs)
    assert group_experiments(backwards)[0] == experiments
    assert [experiment.label for experiment in experiments] == ["Standard", "MAGN", "ape", "zebra"]


@pytest.mark.parametrize(
    ("left", "right", "title"),
    [
        (C19, C19, "c18"),
        (C19, C19[:15], "c15"),
        ([name for name in C19 if name != "frost"], C19, "c19 without frost"),
        (C19, ["fog", "snow"], "snow + fog"),
        (["fog"], ["snow"], "no corruption"),
        (C19[:9], C19, "9 corruptions"),
    ],
)
def test_the_common_set_says_its_name(left, right, title, fake_run):
    runs, _ = read_runs([fake_run("a", dict.fromkeys(left, 0.5)), fake_run("b", dict.fromkeys(right, 0.5), seed=1)])
    experiments, _ = group_experiments(runs)
    assert common_set(experiments)[0] == title


def test_the_command_makes_the_same_configuration(fake_run):
    fields = {
        "train.epochs": 7,
        "data.dir": "a folder/x",
        "train.amp": "bf16",
        "eval.num_images": 10,
        "loss.jsd_weight": 1.5,
    }
    folder = fake_run("run", method="magn", data="digits", network="resnet_small", seed=3, fields=fields)
    run, _ = read_run(folder)
    words = shlex.split(command(run))
    assert words[:3] == ["python", "-m", "fastmagn.train"]
    assert plain(parse_config(words[3:], "test", "A test.")) == run.config


def test_the_command_of_a_run_with_code_of_its_own_runs_that_code(fake_run, tmp_path):
    """The field `imports` only records the file; the option --import runs it."""
    code = tmp_path / "mine.py"
    run, _ = read_run(fake_run("run", fields={"imports": str(code)}))
    words = shlex.split(command(run))
    assert words[words.index("--import") + 1] == str(code)
    assert "--imports" not in words


def test_the_table_of_runs_says_what_ended_the_training(fake_run):
    runs, _ = read_runs([fake_run("a"), fake_run("b", seed=1, fields={"train.epochs": 9, "train.max_steps": 20})])
    experiments, _ = group_experiments(runs)
    header, *rows = runs_table(experiments)
    assert [row[header.index("epochs")] for row in rows] == ["30", "9, ended by train.max_steps 20"]


@pytest.mark.parametrize(
    ("steps", "said"), [(19, "30"), (20, "30, ended by train.max_steps 20"), (None, "30, ended by train.max_steps 20")]
)
def test_a_limit_that_no_step_reached_ended_no_training(fake_run, steps, said):
    folder = fake_run("run", fields={"train.max_steps": 20})
    rewrite(folder, lambda results: results.pop("steps") if steps is None else results.update(steps=steps))
    assert read_run(folder)[0].trained_for == said


def test_a_run_on_a_folder_of_any_corruptions_is_reported(fake_run):
    """C-bar complete, a corruption of the user's own, and one of three severities."""
    folder = fake_run("run", means=dict.fromkeys((*C19, *CIFAR_CBAR, "my_rain"), 0.6))

    def change(results):
        results["corruption_accuracy"]["xy_motion_blur"] = [0.9, None, 0.6, None, 0.3]
        results["severities"] = {"xy_motion_blur": [1, 3, 5]}
        results["mca"]["cbar"] = sum(sum(results["corruption_accuracy"][name]) for name in CIFAR_CBAR) / 50

    rewrite(folder, change)
    (run,), warnings = read_runs([folder])
    assert warnings == []
    assert list(run.corruption_accuracy)[-2:] == ["my_rain", "xy_motion_blur"]
    assert run.mean("xy_motion_blur", (1, 3, 5)) == pytest.approx(0.6)
    assert run.mean("xy_motion_blur", (1, 2, 3)) is None
    assert run.mca(("xy_motion_blur",)) is None
    assert "xy_motion_blur" not in run.complete
    tables = make_tables(group_experiments([run])[0])
    rows = {row.labels[0]: row.cells[0] for table in tables if table.name.endswith("corruptions") for row in table.rows}
    assert rows["Xy motion blur"].mean == pytest.approx(0.6)
    assert rows["My rain"] is not None
    assert rows["mCA cbar"].mean == pytest.approx(run.mca(CIFAR_CBAR))
    rewrite(folder, lambda results: results["mca"].update(cbar=0.1))
    with pytest.raises(InputError, match=r"mca\.cbar: got 0\.1; corruption_accuracy gives"):
        read_runs([folder])

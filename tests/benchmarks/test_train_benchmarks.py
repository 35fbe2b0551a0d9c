"""benchmarks.train, scaling and time_to_mca, tiny: JSON strict and consistent, plots there; no time is asserted."""

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from benchmarks import scaling, time_to_mca
from benchmarks import train as benchmark
from benchmarks.tight import has_opencv
from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import plain
from fastmagn.data.files.crops import has_dali
from fastmagn.errors import InputError, Interrupted
from fastmagn.runs.paths import last_checkpoint
from fastmagn.sweeping.trial import Outcome
from tests.helpers.photo_folders import make_photo_folder
from tests.helpers.processes import LIMIT_S, start, wait_until

TINY = ["--train.batch_size", "16", "--device", "cpu", "--train.amp", "float32"]


@pytest.fixture(scope="module")
def photo_folder(tmp_path_factory) -> Path:
    return make_photo_folder(tmp_path_factory.mktemp("photos"), 48, 6)


def read_strict(path: Path) -> dict:
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))


def check_spread(value: dict) -> None:
    assert value["lowest"] <= value["median"] <= value["highest"]


@pytest.mark.slow
def test_train(tmp_path, capsys):
    out = tmp_path / "train.json"
    own = ["--steps", "1", "--turns", "2", "--conventional_steps", "1", "--workers", "1", "--out", str(out)]
    assert benchmark.main([*own, *TINY]) == 0
    result = read_strict(out)
    assert result["settings"]["config"]["train.batch_size"] == 16
    assert result["settings"]["rival_turns"] == 5
    rivals = ["conventional", *(["tight"] if has_opencv() else [])]
    of_rivals = [f"{name}_step_s" for name in rivals] + [f"ratio_to_{name}" for name in rivals]
    numbers = ("step_s", "ceiling_step_s", "peak_gflop_per_s", "share_of_peak_pct", *of_rivals)
    for name in numbers:
        check_spread(result[name])
        assert result[name]["highest"] > 0, name
    check_spread(result["over_ceiling_pct"])
    assert result["over_ceiling_pct"]["lowest"] > -100, "which of two so short steps is faster is chance"
    assert result["share_of_peak_pct"]["lowest"] > 0
    assert result["images_per_s"] == pytest.approx(16 / result["step_s"]["median"])
    assert result["views_per_s"] == pytest.approx(4 * result["images_per_s"])
    assert set(result["parts_ms"]) == {"batch", "views", "prepare", "forward", "backward", "optimizer"}
    # resnet_small: its 3x3 and 1x1 convolutions and its linear layer, a product and two gradients of it each, 64 views.
    forward = 2 * (
        16 * 16 * 32 * 27 + 2 * 16 * 16 * 32 * 288 + 8 * 8 * 64 * (288 + 576 + 32) + 4 * 4 * 128 * (576 + 1152 + 64)
    )
    whole = 64 * 3 * (forward + 2 * 128 * 10) - 64 * 2 * 16 * 16 * 32 * 27  # no gradient for the images themselves
    assert result["step_gflop"] == pytest.approx(whole / 1e9, rel=1e-6)
    assert "conventional" in capsys.readouterr().out


@pytest.mark.slow
def test_train_on_files(tmp_path, capsys):
    out = tmp_path / "folder.json"
    own = ["--data", "folder", "--folder_images", "32", "--turns", "2", "--workers", "1", "--memory_steps", "6"]
    fields = [*TINY, "--data.image_size", "32", "--data.dir", str(tmp_path), "--out", str(out)]
    assert benchmark.main([*own, *fields]) == 0
    result = read_strict(out)
    assert result["settings"]["memory_steps"] == 6
    names = {"torchvision", "conventional", *(["dali"] if has_dali() else [])}
    assert set(result["feeding"]) == names
    assert set(result["memory_growth_mib"]) == names - {"conventional"}
    assert set(result["memory_growth_second_half_mib"]) == names - {"conventional"}
    for entry in result["feeding"].values():
        check_spread(entry["images_per_s"])
        check_spread(entry["ratio_to_conventional"])
    assert result["feeding"]["conventional"]["ratio_to_conventional"]["median"] == 1
    assert "times the usual loop" in capsys.readouterr().out


@pytest.mark.slow
def test_train_on_shards_beside_the_folder(tmp_path, capsys):
    out = tmp_path / "shards.json"
    own = ["--data", "webdataset", "--folder_images", "32", "--turns", "1", "--workers", "1", "--memory_steps", "6"]
    fields = [*TINY, "--data.image_size", "32", "--data.dir", str(tmp_path), "--out", str(out)]
    assert benchmark.main([*own, *fields]) == 0
    result = read_strict(out)
    decoders = {"torchvision", *(["dali"] if has_dali() else [])}
    rival = {"conventional"} if find_spec("webdataset") else set()
    assert set(result["feeding"]) == decoders | {f"folder_{name}" for name in decoders} | rival
    assert set(result["memory_growth_mib"]) == set(result["memory_growth_second_half_mib"]) == decoders
    base = "folder_dali" if has_dali() else "folder_torchvision"
    assert result["feeding"][base][f"ratio_to_{base}"]["median"] == 1
    assert f"times {base}" in capsys.readouterr().out


@pytest.mark.slow
def test_the_step_on_a_folder_of_files_has_its_parts_and_its_usual_loop(photo_folder, tmp_path):
    out = tmp_path / "train.json"
    own = ["--steps", "1", "--turns", "1", "--conventional_steps", "1", "--workers", "1", "--out", str(out)]
    fields = ["--data.name", "folder", "--data.dir", str(photo_folder), "--data.image_size", "32", "--method", "augmix"]
    assert benchmark.main([*own, *TINY, *fields]) == 0
    result = read_strict(out)
    assert result["parts_ms"]["batch"]["median"] > 0
    assert result["conventional_step_s"]["median"] > 0


@pytest.mark.slow
@pytest.mark.process
def test_time_to_mca(tmp_path):
    runs_dir, out = tmp_path / "runs", tmp_path / "time.json"
    done = runs_dir / "done" / "seed3"
    done.mkdir(parents=True)
    results = {
        "mca": {"c15": 0.95, "c18": 0.5, "c19": 0.5},
        "clean_accuracy": 0.99,
        "rms_calibration_error": {"corrupt": 0.02},
        "train_s": 9.0,
        "images_per_s": 100.0,
        "config": plain(parse_config([*TINY, "--train.seed", "3"], "fastmagn.train", "")),
    }
    (done / "results.json").write_text(json.dumps(results))
    (done / time_to_mca.CLOCK_FILE).write_text(json.dumps({"trained_after_s": 12.0}))
    new = " ".join([*TINY, "--train.max_steps", "1", "--eval.num_images", "4", "--eval.corruption_set", "c15"])
    own = ["--seeds", "3", "--set", "c15", "--target", "0.9", "--runs_dir", str(runs_dir), "--out", str(out)]
    assert time_to_mca.main([*own, "--run", "done", " ".join(TINY), "--run", "new", new]) == 0
    recipes = read_strict(out)["recipes"]
    assert recipes["done"]["mca"] == {"mean": 0.95, "sd": 0.0}
    assert recipes["done"]["trained_after_s"]["mean"] == 12.0
    assert recipes["done"]["reached"] == 1
    assert recipes["new"]["reached"] == 0
    assert recipes["new"]["trained_after_s"]["mean"] > 0
    assert json.loads((runs_dir / "new" / "seed3" / "results.json").read_text())["config"]["train"]["seed"] == 3
    with Image.open(out.with_suffix(".png")) as picture:
        assert min(picture.size) > 300
    before = recipes["new"]["trained_after_s"]["mean"]
    assert time_to_mca.main([*own, "--run", "new", new]) == 0
    assert read_strict(out)["recipes"]["new"]["trained_after_s"]["mean"] == before
    with pytest.raises(InputError) as error:
        time_to_mca.main([*own, "--run", "new", f"{new} --optim.lr 0.3"])
    lr = Config().optim.lr
    assert str(error.value) == (
        f"{runs_dir / 'new' / 'seed3'}: has the results of another recipe: optim.lr is {lr} there and 0.3 here. Give"
        " its arguments, or another name to --run."
    )


def timed_by(monkeypatch, *starts: tuple[float, float | None, str]) -> None:
    """Let training be these starts in turn: (s when it starts, s of its last checkpoint or None, how it ends)."""
    turns = iter(starts)
    clock = SimpleNamespace()

    def run(run_dir: Path, *_: object) -> Outcome:
        checkpoint = last_checkpoint(run_dir)
        if clock.checkpoint_s is not None:
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.touch()
            os.utime(checkpoint, (clock.checkpoint_s, clock.checkpoint_s))
        return Outcome(run_dir.name, clock.state, "the device failed" if clock.state == "failed" else "")

    def start() -> float:
        started_s, clock.checkpoint_s, clock.state = next(turns)
        return started_s

    monkeypatch.setattr(time_to_mca, "run_trial", run)
    monkeypatch.setattr(time_to_mca, "time", SimpleNamespace(time=start))


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([(1000, 1030, "finished")], 30),
        ([(1000, 1030, "interrupted"), (5000, 5020, "finished")], 50),
        ([(1000, 1030, "interrupted"), (5000, 5020, "failed"), (6000, 6005, "finished")], 55),
        # The second one wrote no checkpoint.
        ([(1000, 1030, "interrupted"), (5000, None, "failed"), (6000, 6005, "finished")], 35),
        ([(1000, None, "interrupted"), (5000, 5020, "finished")], 20),  # nothing was left of the first
        ([(1000, 1030, "interrupted"), (5000, None, "finished")], 30),  # only the evaluation was missing
    ],
)
def test_the_time_of_an_interrupted_run_is_that_of_all_its_starts(tmp_path, monkeypatch, starts, expected):
    timed_by(monkeypatch, *starts)
    for *_, state in starts[:-1]:
        with pytest.raises(InputError if state == "failed" else Interrupted):
            time_to_mca.time_training(tmp_path, [])
    time_to_mca.time_training(tmp_path, [])
    assert time_to_mca.read_clock(tmp_path) == {"trained_after_s": expected}


def test_a_run_that_something_else_began_is_refused(tmp_path):
    checkpoint = last_checkpoint(tmp_path / "one" / "seed3")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    with pytest.raises(InputError) as error:
        time_to_mca.main(["--run", "one", "--method standard", "--seeds", "3", "--runs_dir", str(tmp_path)])
    assert str(error.value) == (
        f"{tmp_path / 'one' / 'seed3'}: has a checkpoint, but no time_to_mca.json, so how long it was trained is"
        " unknown. Remove the folder, or name another --runs_dir."
    )


def test_summaries_are_means_and_deviations():
    rows = [
        {"seed": seed, "mca": mca, "clean_accuracy": 0.9, "trained_after_s": 10.0 * seed}
        for seed, mca in ((1, 0.5), (2, 0.7), (3, 0.6))
    ]
    summary = time_to_mca.summarise(rows, 0.6)
    assert summary["mca"]["mean"] == pytest.approx(0.6)
    assert summary["mca"]["sd"] == pytest.approx(0.1)
    assert summary["trained_after_s"]["mean"] == pytest.approx(20)
    assert summary["reached"] == 2


def test_scaling(tmp_path, monkeypatch):
    rates = {1: iter([100.0, 120.0, 110.0]), 2: iter([150.0, 176.0, 190.0])}
    monkeypatch.setattr(scaling, "images_per_s", lambda count, epochs, fields: next(rates[count]))
    out = tmp_path / "scaling.json"
    assert scaling.main(["--processes", "1", "2", "--out", str(out)]) == 0
    rows = read_strict(out)["processes"]
    assert rows["1"]["images_per_s"] == {"median": 110, "lowest": 100, "highest": 120}
    assert rows["2"]["efficiency_pct"] == pytest.approx(100 * 176 / 220)


@pytest.mark.slow
@pytest.mark.process
def test_a_run_on_one_process_has_a_rate():
    fields = ["--train.batch_size", "512", "--device", "cpu", "--train.amp", "float32", "--method", "standard"]
    assert scaling.images_per_s(1, 2, fields) > 0


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (benchmark.main, ["--steps", "0"], "steps: got 0; expected 1 or more."),
        (
            benchmark.main,
            ["--data", "folder", "--folder_images", "63"],
            "folder_images: got 63; expected train.batch_size, 64, or more.",
        ),
        (scaling.main, ["--repeats", "0"], "repeats: got 0; expected 1 or more."),
        (
            time_to_mca.main,
            ["--run", "a", "--method 'standard"],
            'run a: got "--method \'standard"; expected words as in a shell (No closing quotation).',
        ),
        (time_to_mca.main, ["--run", "../a", ""], "run: got '../a'; expected the name of a folder."),
        (scaling.main, ["--epochs", "1"], "epochs: got 1; expected 2 or more: the first is not counted."),
        (
            time_to_mca.main,
            ["--run", "a", "", "--target", "90"],
            "target: got 90.0; expected a fraction in (0, 1).",
        ),
        (
            time_to_mca.main,
            ["--run", "a", "", "--run", "a", ""],
            "run: got ['a', 'a']; expected a name for each recipe.",
        ),
    ],
)
def test_unusable_arguments_are_refused(main, arguments, message):
    with pytest.raises(InputError) as error:
        main(arguments)
    assert str(error.value) == message


@pytest.mark.slow
@pytest.mark.process
def test_a_run_that_fails_says_why(tmp_path):
    nowhere, own = tmp_path / "nowhere", ["--runs_dir", str(tmp_path)]
    with pytest.raises(InputError, match=r"seed0: data\.dir: .*nowhere: no such file.* \(full output: .*log\)"):
        time_to_mca.main(["--run", "bad", f"--data.name cifar10 --data.dir {nowhere}", *own])


def test_a_run_that_cannot_be_is_refused_before_it_starts(tmp_path):
    with pytest.raises(InputError, match=r"augment\.aug_severity: got 12"):
        time_to_mca.main(["--run", "bad", "--augment.aug_severity 12", "--runs_dir", str(tmp_path / "runs")])
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.process
def test_ctrl_c_lets_the_run_save(tmp_path):
    """Only the benchmark gets the signal."""
    run_dir = tmp_path / "runs" / "one" / "seed0"
    fields = " ".join([*TINY, "--method standard --train.epochs 2000"])
    process = start(["benchmarks.time_to_mca", "--runs_dir", "runs", "--run", "one", fields, "--seeds", "0"], tmp_path)
    wait_until(lambda: last_checkpoint(run_dir).exists(), process)
    process.send_signal(signal.SIGINT)
    output = "".join(process.communicate(timeout=LIMIT_S))
    assert process.returncode == 130, output
    assert "interrupted; the same command resumes" in output
    assert "resumes from the last checkpoint" in (run_dir / "trial.log").read_text()

"""benchmarks.equal_time: equal time by plan, runs that are not repeated, numbers against plain arithmetic."""

import json
import re
import shlex
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from benchmarks import equal_time, records
from benchmarks.equal_time_extend import planned_longer, read_record
from benchmarks.equal_time_plan import plan_epochs
from benchmarks.equal_time_rates import best_rates, print_rates, trials_of_rates
from fastmagn.config.command_line import parse_config
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.schema import Config, DataConfig
from fastmagn.config.text import flatten, plain, to_yaml
from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import InputError
from fastmagn.machine.files import write_json, write_text
from fastmagn.runs.paths import CONFIG
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.trial import Outcome
from fastmagn.training.run import train
from tests.helpers.own_code import forgotten

TINY = ["--train.batch_size", "512", "--device", "cpu", "--train.amp", "float32", "--optim.schedule", "one_cycle"]
FAST = ["--steps", "1", "--turns", "1", "--eval.num_images", "4", "--eval.corruption_set", "c15", *TINY]
BOTH = ["--run", "one", "--method standard", "--run", "other", "--method standard --loss.label_smoothing 0.1"]

PLAN_OF_ONE_EPOCH = {
    "budget_s": 1.0,
    "slowest": "one",
    "recipes": {"one": {"images_per_s": 1000.0, "epochs": 1, "steps": 2, "planned_s": 1.0}},
}


def test_the_budget_is_whole_epochs_of_the_slowest_recipe():
    rounds = [{"fast": 0.1, "slow": 0.42}, {"fast": 0.2, "slow": 0.8}, {"fast": 0.1, "slow": 0.4}]
    plan = plan_epochs(rounds, {"fast": (10, 64), "slow": (10, 64)}, 15)
    assert plan["slowest"] == "slow"
    assert plan["budget_s"] == pytest.approx(4 * 10 * 0.42)  # of the median round; 15 s are 3.6 epochs
    # The ratio is the median over rounds of a ratio, 4, not the ratio of the medians, 4.2.
    assert plan["recipes"]["fast"]["step_s"] == pytest.approx(0.42 / 4)
    assert [plan["recipes"][name]["epochs"] for name in ("fast", "slow")] == [16, 4]
    assert plan["recipes"]["fast"]["steps"] == 160
    assert plan["recipes"]["fast"]["images_per_s"] == pytest.approx(64 / 0.105)
    assert plan["recipes"]["fast"]["planned_s"] == pytest.approx(plan["budget_s"])


def test_epochs_of_other_sizes_are_planned_by_their_time():
    plan = plan_epochs([{"small": 0.1, "large": 0.3}], {"small": (20, 32), "large": (10, 64)}, 9)
    assert {name: row["epochs"] for name, row in plan["recipes"].items()} == {"small": 4, "large": 3}
    assert plan["recipes"]["small"]["planned_s"] == pytest.approx(8)


def test_a_budget_below_half_an_epoch_is_refused():
    with pytest.raises(InputError) as error:
        plan_epochs([{"one": 1.0, "two": 2.0}], {"one": (10, 64), "two": (10, 64)}, 9)
    assert str(error.value) == "budget_s: got 9; expected 20 or more, an epoch of two, the slowest."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            "--optim.schedule step",
            "run bad: optim.schedule: got 'step'; expected one_cycle or triangular, which fit any",
        ),
        ("--optim.schedule cosine_restarts", "run bad: optim.schedule: got 'cosine_restarts'; expected one_cycle or"),
        ("--train.max_steps 3", "run bad: train.max_steps: got 3; expected 0: the budget is the limit."),
        ("--train.clean_epochs 1", "run bad: train.clean_epochs: got 1; expected 0, as all epochs"),
        ("--train.swa_fraction 0.1", "run bad: train.swa_fraction: got 0.1; expected 0, as all epochs"),
        ("--train.ema_decay 2", "train.ema_decay: got 2.0; expected"),
    ],
)
def test_recipes_that_cannot_be_planned_are_refused(tmp_path, fields, message):
    arguments = ["--out", str(tmp_path / "out"), "--budget_s", "9", "--run", "bad", fields]
    with pytest.raises(InputError) as error:
        equal_time.main([*arguments, *FAST])
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget_s", "0", *BOTH], "budget_s: got 0.0; expected seconds above 0."),
        (["--budget_s", "9", "--run", "a/b", ""], "run: got 'a/b'; expected the name of a folder."),
        (
            ["--budget_s", "9", "--run", "a", "--method 'standard"],
            'run a: got "--method \'standard"; expected words as in a shell (No closing quotation).',
        ),
        (["--budget_s", "9", "--jobs", "0", *BOTH], "jobs: got 0; expected 1 or more."),
        (["--budget_s", "9", "--run", "a", "", "--run", "a", ""], "run: got ['a', 'a']; expected a name for each"),
    ],
)
def test_unusable_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(InputError) as error:
        equal_time.main(["--out", str(tmp_path / "out"), *arguments, *FAST])
    assert message in str(error.value)


def test_the_plan_is_measured_kept_and_not_taken_for_another(tmp_path):
    arguments = ["--out", str(tmp_path), "--budget_s", "20", "--plan_only", *FAST, *BOTH]
    assert equal_time.main(arguments) == 0
    text = (tmp_path / equal_time.PLAN).read_text()
    rows = json.loads(text)["recipes"]
    assert all(row["steps"] == 2 * row["epochs"] for row in rows.values())  # 1,257 digits in batches of 512
    assert all(row["step_s"] > 0 for row in rows.values())
    assert equal_time.main(arguments) == 0
    assert (tmp_path / equal_time.PLAN).read_text() == text
    for other in (["--budget_s", "21"], ["--loss.label_smoothing", "0.2"]):
        with pytest.raises(InputError, match="is the plan of another comparison"):
            equal_time.main([*arguments, *other])
    assert (tmp_path / equal_time.PLAN).read_text() == text


def test_the_numbers_of_a_run():
    names = CORRUPTION_SETS["c15"]
    table = {name: [0.1 * place + 0.01 * severity for severity in range(5)] for place, name in enumerate(names)}
    results = {
        "corruption_accuracy": table,
        "rms_calibration_error": {"clean": 0.01, "corrupt": 0.02},
        "config": {"train": {"epochs": 3}},
        **{"train_s": 9.0, "wall_s": 10.0, "clean_accuracy": 0.9},
    }
    numbers = equal_time.numbers_of(results)
    noises = {"gaussian_noise", "shot_noise", "impulse_noise"}
    means = [sum(row) / 5 for name, row in table.items() if name not in noises]
    assert numbers["mca_c15_without_noises"] == pytest.approx(sum(means) / 12)
    assert numbers["mca_c15"] == pytest.approx(sum(sum(row) for row in table.values()) / 75)
    assert numbers["mca_c18"] is None
    assert numbers["mca_cbar"] is None
    summary = equal_time.summarise([{"seed": 0, **numbers}, {"seed": 1, **numbers, "train_s": 11.0}])
    assert summary["train_s"] == {"mean": 10.0, "sd": pytest.approx(2**0.5)}
    assert "mca_c18" not in summary
    assert [row["seed"] for row in summary["seeds"]] == [0, 1]


def test_the_most_accurate_learning_rate_is_chosen():
    accuracies = {"one": {0.4: 0.5, 0.1: 0.6, 0.2: 0.6}, "other": {0.1: 0.2, 0.2: 0.3, 0.4: 0.25}}
    assert best_rates(accuracies) == {"one": 0.1, "other": 0.2}


def test_the_chosen_rates_have_a_star(capsys):
    accuracies = {"one": {0.1: 0.75, 0.2: 0.5}, "other": {0.1: 0.5, 0.2: 0.6251}}
    print_rates(accuracies, best_rates(accuracies))
    rows = [re.findall(r"[\w.*]+", line) for line in capsys.readouterr().out.splitlines()]
    assert ["one", "75.00*", "50.00"] in rows
    assert ["other", "50.00", "62.51*"] in rows


def test_short_runs_for_the_rates_hold_images_out_and_change_nothing_else(tmp_path):
    config = Config()
    plan = {"recipes": {"one": {"epochs": 10, "planned_s": 300.0}}}
    trials = trials_of_rates({"one": config}, plan, [0.1, 0.2], seconds=65, held_out=50, out=tmp_path)
    assert [trial.config.run_dir for trial in trials] == [tmp_path / "one" / "lr0.1", tmp_path / "one" / "lr0.2"]
    for trial, rate in zip(trials, (0.1, 0.2), strict=True):
        ours, theirs = flatten(trial.config), flatten(config)
        wanted = {"data.num_validation_images": 50, "optim.lr": rate, "train.epochs": 2}
        free = ("run_dir", "resume", "train.seed", "eval.num_images")
        theirs |= wanted | {field: ours[field] for field in free}
        assert ours == theirs


@pytest.mark.process
def test_runs_have_the_code_that_the_command_line_names(tmp_path, monkeypatch):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from fastmagn.extend import add_model\n"
        "from fastmagn.models.resnet import SmallResNet\n"
        "add_model('tiny', lambda num_classes: SmallResNet(num_classes, (8, 8)))\n"
    )
    monkeypatch.setattr(equal_time, "make_plan", lambda recipes, *_: PLAN_OF_ONE_EPOCH)
    arguments = ["--out", str(tmp_path / "out"), "--budget_s", "1", "--seeds", "0", "--import", str(mine), *FAST]
    with forgotten():
        assert equal_time.main([*arguments, "--run", "one", "--model.name tiny --method standard"]) == 0
    results = json.loads((tmp_path / "out" / "one" / "seed0" / "results.json").read_text())
    assert results["config"]["model"]["name"] == "tiny"
    assert results["config"]["train"]["epochs"] == 1


def test_p_values_are_those_of_welchs_test():
    def recipe(*values: float) -> dict:
        return {"clean_accuracy": {}, "epochs": {}, "seeds": [{"clean_accuracy": v, "epochs": 3} for v in values]}

    one, other = recipe(0.80, 0.82, 0.81), recipe(0.70, 0.76, 0.74)
    found = equal_time.p_values(one, other)
    assert set(found) == {"clean_accuracy"}  # equal epochs have no test
    variances = [0.01**2 / 3, np.var([0.70, 0.76, 0.74], ddof=1) / 3]
    t = (0.81 - np.mean([0.70, 0.76, 0.74])) / sum(variances) ** 0.5
    freedom = sum(variances) ** 2 / sum(v**2 / 2 for v in variances)
    draws = np.random.default_rng(0).standard_t(freedom, 400_000)
    assert found["clean_accuracy"] == pytest.approx(np.mean(abs(draws) > t), abs=0.002)
    assert equal_time.p_values(recipe(0.8), other) == {}


def test_a_records_table_marks_the_best_and_what_is_significant():
    def recipe(c18: float, rms: float, p: float) -> dict:
        means = {"clean_accuracy": 0.8, "mca_c18": c18, "rms_clean": rms, "rms_corrupt": rms}
        numbers = {key: {"mean": mean, "sd": 0.004} for key, mean in means.items()}
        return numbers | {"p_values": {"mca_c18": p}, "seeds": [{"seed": 0}, {"seed": 1}]}

    plan = {name: {"epochs": 3, "images_per_s": 1234.4, "planned_s": 295.7} for name in ("standard", "magn")}
    settings = {"plan": {"recipes": plan}, "learning_rates": {"standard": 0.2, "magn": 0.1}}
    rows = {"standard": recipe(0.7, 0.05, 1.0), "magn": recipe(0.75, 0.06, 0.004)}
    table = records.markdown({"settings": settings, "recipes": rows})
    assert table.splitlines() == [
        "| | epochs | learning rate | clean | c18 | RMS calibration error, clean | corrupt | seconds | images/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        r"| `magn` | 3 | 0.1 | **80.0 ± 0.4** | **75.0 ± 0.4**\* | 6.0 ± 0.4 | 6.0 ± 0.4 | 296 | 1,234 |",
        "| `standard` | 3 | 0.2 | **80.0 ± 0.4** | 70.0 ± 0.4 | 5.0 ± 0.4 | **5.0 ± 0.4** | 296 | 1,234 |",
    ]
    rows["standard"]["seeds"].pop()
    table = records.markdown({"settings": settings, "recipes": rows})
    assert table.splitlines()[3] == "| `standard` | 3 | 0.2 | **80.0** | 70.0 | 5.0 | **5.0** | 296 | 1,234 |"


@pytest.mark.parametrize("finished", [("standard", "magn", "augmix"), ("magn", "augmix")])
def test_stars_are_against_the_first_recipe_or_there_are_none(finished, tmp_path, capsys, monkeypatch):
    """Its first seed has failed, or both."""
    clean = {"standard": (0.7, 0.701), "magn": (0.8, 0.801), "augmix": (0.8, 0.8015)}
    trials = [
        Trial(
            f"{name}, seed {seed}",
            {"recipe": name, "seed": seed},
            Config(run_dir=tmp_path / name / f"{seed}", device="cpu"),
        )
        for seed in (0, 1, 2)
        for name in clean
    ]
    undone = {("standard", 0)} | {(name, 2) for name in ("magn", "augmix")}
    ends = {trial.config.run_dir: trial.values for trial in trials}

    def results_of(file: Path) -> dict:
        name, seed = ends[file.parent].values()
        return {
            "corruption_accuracy": {},
            "rms_calibration_error": {"clean": 0.1, "corrupt": 0.1},
            "config": {"train": {"epochs": 1}},
            **{"train_s": 1.0, "wall_s": 1.0, "clean_accuracy": clean[name][seed - (name == "standard")]},
        }

    def is_done(trial: Trial) -> bool:
        name, seed = trial.values.values()
        return name in finished and (name, seed) not in undone

    monkeypatch.setattr(equal_time, "is_finished", is_done)
    monkeypatch.setattr(equal_time, "read_results", results_of)
    options = SimpleNamespace(seeds=[0, 1, 2], budget_s=1.0, out=tmp_path)
    summary = equal_time.report(trials, {}, {}, None, options)
    assert tuple(summary) == finished
    has_stars = "standard" in finished
    for name in ("magn", "augmix"):
        # Welch's test of two pairs, 10 points apart with deviations of 0.07 to 0.11 points.
        assert (summary[name]["p_values"].get("clean_accuracy", 1) < 0.01) == has_stars
    equal_time.print_table(summary, equal_time.first_recipe(trials))
    shown = " ".join(capsys.readouterr().out.split())
    assert ("*: p < 0.01 against standard" in shown) == has_stars
    assert ("no *: standard has no finished run" in shown) != has_stars


def test_a_records_time_is_that_of_its_first_recipe_on_any_machine():
    """On a machine of half the speed, a recipe of twice the first one's step gets half its epochs."""
    plan = {"budget_s": 60.0, "recipes": {"first": {"epochs": 30, "step_s": 0.1}}}
    rounds = [{"first": 0.2, "new": 0.4}, {"first": 0.3, "new": 0.6}, {"first": 0.2, "new": 9.0}]
    longer = planned_longer(plan, "first", rounds, {"first": (20, 64), "new": (10, 128)})
    assert longer["recipes"]["first"] == plan["recipes"]["first"]
    new = longer["recipes"]["new"]
    assert new["step_s"] == pytest.approx(0.2)
    assert new["epochs"] == 30  # of 10 steps each: 60 s
    assert new["planned_s"] == pytest.approx(60)
    assert new["images_per_s"] == pytest.approx(640)


def train_here(monkeypatch) -> None:
    """Runs are trained in this process, one after another."""
    turn = Lock()

    def run_trial(run_dir: Path, *_: object) -> Outcome:
        with turn:
            train(parse_config(["--config", str(run_dir / CONFIG)], "test", ""))
        return Outcome(run_dir.name, "finished")

    monkeypatch.setattr(equal_time, "run_trial", run_trial)


@pytest.mark.slow
def test_runs_follow_the_plan_and_are_not_repeated(tmp_path, capsys, monkeypatch):
    train_here(monkeypatch)
    plan_only = ["--out", str(tmp_path), "--budget_s", "20", *FAST, *BOTH, "--run", "bad", "--augment.policy no.yaml"]
    with pytest.raises(InputError, match=r"no\.yaml"):
        equal_time.main([*plan_only, "--plan_only"])
    arguments = ["--out", str(tmp_path), "--budget_s", "20", *FAST, *BOTH, "--seeds", "0", "1"]
    assert equal_time.main([*arguments, "--plan_only"]) == 0
    plan = json.loads((tmp_path / equal_time.PLAN).read_text())
    for row in plan["recipes"].values():  # as if the machine were slow
        row |= {"epochs": 2, "steps": 4}
    (tmp_path / equal_time.PLAN).write_text(json.dumps(plan))
    rates = ["--rates", "0.001", "0.2", "--rate_s", "1", "--held_out", "100"]
    arguments += rates
    assert equal_time.main([*arguments, "--jobs", "2"]) == 0
    result = json.loads((tmp_path / equal_time.TABLE).read_text())
    for name in ("one", "other"):
        assert [row["seed"] for row in result["recipes"][name]["seeds"]] == [0, 1]
        for seed in (0, 1):
            results = json.loads((tmp_path / name / f"seed{seed}" / "results.json").read_text())
            assert results["steps"] == 4
            assert results["config"]["train"]["seed"] == seed
            assert results["config"]["data"]["num_validation_images"] == 0
            of_rate = {float(rate): accuracy for rate, accuracy in result["settings"]["rates"][name].items()}
            assert set(of_rate) == {0.001, 0.2}
            assert results["config"]["optim"]["lr"] == max(sorted(of_rate), key=lambda rate: of_rate[rate])
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    capsys.readouterr()
    assert records.main(["2026-01-31-digits", "--add", str(tmp_path)]) == 0
    assert "| `one` | 2 |" in capsys.readouterr().out
    kept = [path for path in (tmp_path / "kept" / "2026-01-31-digits").rglob("*") if path.is_file()]
    assert len(kept) == 1 + 4 * 3
    assert not [path for path in kept if str(tmp_path) in path.read_text()]
    with pytest.raises(InputError, match="exists"):
        records.main(["2026-01-31-digits", "--add", str(tmp_path)])
    check_that_a_record_can_be_extended(tmp_path / "kept" / "2026-01-31-digits", tmp_path / "longer", result)
    stamps = {path: path.stat().st_mtime_ns for path in Path(tmp_path).glob("*/seed*/results.json")}
    capsys.readouterr()
    assert equal_time.main(arguments) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert "equal training time" in capsys.readouterr().out


def test_a_record_names_no_folder_of_runs_that_were_added_to_another(tmp_path, monkeypatch, capsys):
    """The first recipe's runs come from a record, where their data lies in DATA."""
    out, numbers = tmp_path / "out", {key: {"mean": 0.5, "sd": 0.1} for key, _ in records.COLUMNS.values()}
    for recipe, data in (("old", "DATA"), ("new", "/somewhere/images")):
        run = out / recipe / "seed0"
        run.mkdir(parents=True)
        config = {"config": {"data": {"dir": data}, "eval": {"cache_dir": None}}}
        (run / "results.json").write_text(json.dumps(config))
        (run / "config.yaml").write_text(f"data:\n  dir: {data}\nrun_dir: {run}\n")
        (run / "metrics.jsonl").write_text("{}\n")
    plan = {"recipes": {key: {"epochs": 1, "planned_s": 1.0, "images_per_s": 1.0} for key in ("old", "new")}}
    settings = {"seeds": [0], "plan": plan, "learning_rates": {"old": 0.1, "new": 0.1}}
    rows = {key: {**numbers, "p_values": {}, "seeds": [{"seed": 0}]} for key in ("old", "new")}
    command = f"python -m benchmarks.equal_time --out {out} --data.dir /somewhere/images"
    (out / "equal_time.json").write_text(json.dumps({"command": command, "settings": settings, "recipes": rows}))
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    assert records.main(["2026-01-31-two", "--add", str(out)]) == 0
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert len(kept) == 7
    assert not [path for path in kept if "/somewhere" in path.read_text() or str(tmp_path) in path.read_text()]
    table = json.loads((tmp_path / "kept" / "2026-01-31-two" / "equal_time.json").read_text())
    assert table["command"] == "python -m benchmarks.equal_time --out DIR --data.dir DATA"


def test_folders_with_other_letters_and_long_ones_do_not_stay_in_a_record(tmp_path, monkeypatch):
    """JSON and YAML write such letters as escapes, and YAML breaks a long text into lines."""
    out, images = tmp_path / "josé 研究", Path("/somewhere/😀 of josé/" + "many words " * 20 + "/images")
    run, cache = out / "one" / "seed0", Path("/somewhere/with plain words " + "and more words " * 10)
    config = Config(run_dir=run, data=DataConfig(dir=images), eval=EvalConfig(cache_dir=cache))
    write_text(run / "config.yaml", to_yaml(config))
    write_json(run / "results.json", {"config": plain(config)})
    (run / "metrics.jsonl").write_text(json.dumps({"folder": str(images)}) + "\n")
    numbers = {key: {"mean": 0.5, "sd": 0.1} for key, _ in records.COLUMNS.values()}
    plan = {"recipes": {"one": {"epochs": 1, "planned_s": 1.0, "images_per_s": 1.0}}}
    settings = {"seeds": [0], "plan": plan, "learning_rates": {"one": 0.1}}
    rows = {"one": {**numbers, "p_values": {}, "seeds": [{"seed": 0}]}}
    command = shlex.join(["python", "--out", str(out), "--data.dir", str(images)])
    write_json(out / "equal_time.json", {"command": command, "settings": settings, "recipes": rows})
    monkeypatch.setattr(records, "RECORDS", tmp_path / "kept")
    assert records.main(["2026-01-31-one", "--add", str(out)]) == 0
    kept = tmp_path / "kept" / "2026-01-31-one"
    expected = plain(config) | {"run_dir": "DIR/one/seed0"}
    expected["data"]["dir"], expected["eval"]["cache_dir"] = "DATA", "CACHE"
    assert yaml.safe_load((kept / "one/seed0/config.yaml").read_text()) == expected
    assert json.loads((kept / "one/seed0/results.json").read_text()) == {"config": expected}
    assert json.loads((kept / "one/seed0/metrics.jsonl").read_text()) == {"folder": "DATA"}
    command = json.loads((kept / "equal_time.json").read_text())["command"]
    assert command == "python --out 'DIR' --data.dir 'DATA'"


def check_that_a_record_can_be_extended(record, out, before):
    extend = ["--out", str(out), "--extend", str(record), *FAST]
    for other, message in (
        (["--run", "one", ""], "run one: is in"),
        (["--run", "new", "--eval.num_images 9"], "run new: eval.num_images: got 9; expected that of the record"),
        (["--run", "new", "", "--budget_s", "9"], "budget_s: got 9.0; expected nothing with --extend"),
        (["--run", "new", "", "--seeds", "5"], "seeds: got [5]; expected those of the record, [0, 1]"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            equal_time.main([*extend, *other])
    new = [*extend, "--run", "new", "--method magn"]
    assert equal_time.main([*new, "--plan_only"]) == 0
    plan = json.loads((out / equal_time.PLAN).read_text())
    assert plan["recipes"]["new"]["epochs"] >= 1
    plan["recipes"]["new"] |= {"epochs": 1, "steps": 2}
    (out / equal_time.PLAN).write_text(json.dumps(plan))
    assert equal_time.main(new) == 0
    result = json.loads((out / equal_time.TABLE).read_text())
    assert list(result["recipes"]) == ["one", "other", "new"]
    for name in ("one", "other"):
        assert result["recipes"][name] == before["recipes"][name]
    assert [row["seed"] for row in result["recipes"]["new"]["seeds"]] == [0, 1]
    assert result["settings"]["learning_rates"]["one"] == before["settings"]["learning_rates"]["one"]
    kept = json.loads((record / equal_time.TABLE).read_text())
    assert result["settings"]["extends"] == [
        {
            "record": "2026-01-31-digits",
            "command": kept["command"],
            "environment": kept["environment"],
            "rounds_step_s": kept["settings"]["plan"]["rounds_step_s"],
        }
    ]
    records.add(out, record.parent / "2026-01-31-three")
    history = read_record(record.parent / "2026-01-31-three").history
    assert [part["record"] for part in history] == ["2026-01-31-digits", "2026-01-31-three"]
    assert history[1]["rounds_step_s"] == plan["rounds_step_s_added"]

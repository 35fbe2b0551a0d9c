"""`~` and `~NAME` mean home folders wherever a path is given, and nothing else is changed."""

import json
import os
import pwd
from pathlib import Path

import pytest
import yaml

from benchmarks import corrupt as corrupt_benchmark
from fastmagn import evaluate, report
from fastmagn import export as export_command
from fastmagn.config.command_line import config_of, parse_config
from fastmagn.config.paths import user_path
from fastmagn.config.text import flatten
from fastmagn.errors import InputError
from fastmagn.evaluation import corrupt_command
from fastmagn.runs.paths import CONFIG, RESULTS
from fastmagn.sweeping.arguments import parse_arguments as parse_sweep
from fastmagn.sweeping.definition import make_trials
from fastmagn.theory import command as theory
from fastmagn.train import train
from tests.config.test_command_line import main_of

PATH_FIELDS = ("run_dir", "data.dir", "model.weights", "eval.corrupted_dir", "eval.perturbed_dir", "eval.cache_dir")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def configured(*arguments: str) -> dict:
    needed = ["--eval.perturbations", "true"]  # else eval.perturbed_dir has no purpose, and is refused
    return flatten(parse_config([*arguments, *needed], "test", ""))


def test_every_path_of_the_schema_is_here():
    from fastmagn.sweeping.definition import FIELD_TYPES

    assert {*PATH_FIELDS, "imports"} == {name for name, kind in FIELD_TYPES.items() if "Path" in str(kind)}


@pytest.mark.parametrize("name", PATH_FIELDS)
def test_the_home_folder_in_every_field_by_every_way(name, home, tmp_path):
    section, _, inner = name.rpartition(".")
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({section: {inner: "~/x/y"}} if section else {name: "~/x/y"}))
    wanted = str(home / "x" / "y")
    assert configured(f"--{name}=~/x/y")[name] == wanted
    assert configured(f"--{name}", "~/x/y")[name] == wanted
    assert configured("--config", str(file))[name] == wanted
    assert configured("--config", f"{name}: ~/x/y")[name] == wanted


def test_the_home_folder_of_imported_code(home, tmp_path):
    """Its option is --import, and runs the file."""
    (home / "x.py").write_text("")
    (tmp_path / "a.yaml").write_text("imports: ~/x.py\n")
    for arguments in (["--import=~/x.py"], ["--import", "~/x.py"], ["--config", str(tmp_path / "a.yaml")]):
        assert configured(*arguments)["imports"] == str(home / "x.py")


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("a\tb", r"data.dir: got 'a\tb'; expected a path whose characters can all be printed."),
        ("a\u202eb", r"data.dir: got 'a\u202eb'; expected a path whose characters can all be printed."),
        ("x" * 4097, "data.dir: got 4,097 characters; expected a path of at most 4,096."),
    ],
)
def test_a_path_that_a_run_folder_could_not_keep(path, fault):
    """The configuration that a run writes could not be read again."""
    with pytest.raises(InputError) as error:
        configured(f"--data.dir={path}")
    assert str(error.value) == fault


def test_only_a_leading_tilde_is_a_home_folder():
    assert configured("--data.dir", "a/~/b")["data.dir"] == "a/~/b"
    assert configured("--data.dir", "a~")["data.dir"] == "a~"
    assert user_path("~") == Path.home()


def test_another_users_home_folder():
    user = pwd.getpwuid(os.getuid())
    assert configured(f"--data.dir=~{user.pw_name}/x")["data.dir"] == f"{user.pw_dir}/x"


def test_what_a_results_file_says_is_left_as_it_is():
    assert config_of({"data": {"dir": "~/x"}}).data.dir == Path("~/x")


def test_configs_and_what_they_are_based_on(home, tmp_path):
    (home / "base.yaml").write_text("method: at\n")
    (home / "a.yaml").write_text("base: base.yaml\ntrain:\n  epochs: 3\n")
    (tmp_path / "b.yaml").write_text("base: ~/a.yaml\ntrain:\n  seed: 4\n")
    for arguments in (["--config=~/a.yaml"], ["--config", "~/a.yaml"], ["--config", str(tmp_path / "b.yaml")]):
        given = configured(*arguments)
        assert (given["method"], given["train.epochs"]) == ("at", 3)


def test_every_command_of_its_own_options(home):
    for make in (evaluate.command_parser,):
        own = make().parse_args(["--run", "~/r", "--out=~/o", "--images", "~/i", "--classes", "~/c", "--corrupted=~/s"])
        assert [own.run, own.out, own.images, own.classes, own.corrupted] == [home / name for name in "roics"]
    values = report.parse_arguments(["~/a", "b", "~/c", "--out=~/o"])
    assert (values["run"], values["out"]) == ([home / "a", Path("b"), home / "c"], home / "o")
    exported = export_command.parse_arguments(["--run=~/r", "--format", "onnx", "--out=~/o.onnx"])
    assert (exported.run, exported.out) == (home / "r", home / "o.onnx")
    made, _ = corrupt_command.parse_arguments(["--out=~/o", "--dataset", "cifar10", "--data_dir=~/d"])
    assert (made.out, made.data_dir) == (home / "o", home / "d")
    runs, measured, _ = theory.parse_arguments(["~/r", "~/s", "--out=~/o", "--data_dir=~/d"])
    assert (runs, measured.out, measured.data_dir) == ([home / "r", home / "s"], home / "o", home / "d")


def test_sweeps(home, tmp_path):
    (home / "base.yaml").write_text("data:\n  dir: ~/d\n")
    file = home / "sweep.yaml"
    file.write_text("base: ~/base.yaml\nfields: {eval.cache_dir: ~/c}\ngrid: {train.seed: [0, 1]}\nout: ~/o\n")
    request = parse_sweep(["--config=~/sweep.yaml", "--grid", "model.weights=~/w,~/v"])
    assert request.out == home / "o"
    _, trials = make_trials(request.arguments, request.search, request.out)
    assert {str(trial.config.model.weights) for trial in trials} == {f"{home}/w", f"{home}/v"}
    assert all(trial.config.data.dir == home / "d" and trial.config.eval.cache_dir == home / "c" for trial in trials)
    assert parse_sweep(["--grid", "train.seed=0,1", "--out=~/p"]).out == home / "p"


def test_benchmarks(home, capsys):
    with pytest.raises(InputError, match=r"^out: got '~nobody-at-all/x'"):
        corrupt_benchmark.main(["--out=~nobody-at-all/x"])


@pytest.mark.parametrize(
    ("command", "arguments", "field"),
    [
        ("train", ["--run_dir=~nobody-at-all/r"], "run_dir"),
        ("train", ["--config", "data: {dir: ~nobody-at-all/r}"], "data.dir"),
        ("train", ["--config", "~nobody-at-all/r"], "config"),
        ("evaluate", ["--run", "~nobody-at-all/r"], "run"),
        ("export", ["--run", "~nobody-at-all/r", "--format", "onnx", "--out", "o.onnx"], "run"),
        ("report", ["r", "~nobody-at-all/r", "--out", "o"], "run"),
        ("corrupt", ["--out", "~nobody-at-all/r"], "out"),
        ("theory", ["~nobody-at-all/r", "--out", "o"], "runs"),
        ("sweep", ["--out", "~nobody-at-all/r"], "out"),
    ],
)
def test_an_unknown_user_is_one_line(command, arguments, field):
    with pytest.raises(InputError) as error:
        main_of(command)(arguments)
    assert str(error.value) == (
        f"{field}: got '~nobody-at-all/r'; expected the home folder of a user of this machine, but ~nobody-at-all is "
        "not one. For a folder that is named ~nobody-at-all, give its whole path."
    )


def test_a_run_lies_in_the_home_folder_and_says_so(home):
    short = ["--train.epochs", "1", "--train.max_steps", "1", "--eval.num_images", "2", "--eval.corruption_set", "c15"]
    train(parse_config(["--run_dir=~/r", "--device", "cpu", *short], "test", ""))
    assert json.loads((home / "r" / RESULTS).read_text())["config"]["run_dir"] == str(home / "r")
    assert yaml.safe_load((home / "r" / CONFIG).read_text())["run_dir"] == str(home / "r")
    assert list(Path.cwd().iterdir()) == []

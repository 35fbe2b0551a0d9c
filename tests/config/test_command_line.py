"""The parser that all commands share: what is misspelt is named with the nearest that exists, in one line."""

import importlib
import warnings
from pathlib import Path

import pytest

from fastmagn.__main__ import VERBS
from fastmagn.config.command_line import config_of, parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, plain
from fastmagn.data import load_images
from fastmagn.errors import InputError, nearest

MAINS = {"corrupt": "fastmagn.evaluation.corrupt_command", "theory": "fastmagn.theory.command"}
MISSPELT = [
    ("train", ["--augment.aug_sevrity", "2"], "augment.aug_sevrity", "augment.aug_severity"),
    ("train", ["--resum=never"], "resum", "resume"),
    ("train", ["--train.epoch", "3"], "train.epoch", "train.epochs"),
    ("train", ["--conf", "digits_quickstart"], "conf", "config"),
    ("train", ["--conf=digits_quickstart"], "conf", "config"),
    ("train", ["--train.lr", "0.1"], "train.lr", "optim.lr"),  # of another section
    ("evaluate", ["--rum", "r"], "rum", "run"),
    ("evaluate", ["--ru", "r"], "ru", "run"),
    ("evaluate", ["--run", "r", "--conf", "digits_quickstart"], "conf", "config"),
    ("evaluate", ["--run", "r", "--save_logit"], "save_logit", "save_logits"),
    ("evaluate", ["--run_dir", "r", "--eval.num_image", "3"], "eval.num_image", "eval.num_images"),
    ("corrupt", ["--out", "o", "--datset", "digits"], "datset", "dataset"),
    ("corrupt", ["--out", "o", "--veriffy"], "veriffy", "verify"),
    ("corrupt", ["--out", "o", "--verif"], "verif", "verify"),
    ("report", ["r", "--uot", "o"], "uot", "out"),
    ("report", ["r", "--ou", "o"], "ou", "out"),
    ("sweep", ["--gird", "train.seed=0,1"], "gird", "grid"),
    ("sweep", ["--grid", "train.seed=0,1", "--num_trial", "3"], "num_trial", "num_trials"),
    ("sweep", ["--grid", "train.seed=0,1", "--conf", "digits_quickstart"], "conf", "config"),
    ("sweep", ["--grid", "train.seed=0,1", "--train.epohcs", "3"], "train.epohcs", "train.epochs"),
    ("export", ["--run", "r", "--fromat", "onnx", "--out", "o.onnx"], "fromat", "format"),
    ("export", ["--run", "r", "--fromat", "onnx"], "fromat", "format"),  # and --format and --out are missing
    ("export", ["--run", "r", "--form", "onnx", "--out", "o.onnx"], "form", "format"),
    ("theory", ["r", "--out", "o", "--num_noize", "3"], "num_noize", "num_noise"),
    ("theory", ["r", "--out", "o", "--num_probe", "3"], "num_probe", "num_probes"),
    ("warm_up", ["--hepl"], "hepl", "help"),
]


def main_of(command: str):
    return importlib.import_module(MAINS.get(command, f"fastmagn.{command}")).main


class Stopped(Exception):
    """Raised in place of training."""


def test_a_runs_configuration_in_another_folder_says_that_it_does_not_resume(tmp_path, monkeypatch):
    def stop(config):
        raise Stopped

    def begin(*arguments):
        with pytest.raises(Stopped):
            main_of("train")(["--device", "cpu", *arguments])

    monkeypatch.setattr("fastmagn.train.train", stop)
    (tmp_path / "here" / "r" / "checkpoints").mkdir(parents=True)
    (tmp_path / "here" / "r" / "config.yaml").write_text("run_dir: r\nmethod: standard\n")
    (tmp_path / "own.yaml").write_text("run_dir: r\nmethod: standard\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.chdir(tmp_path / "here")
        begin("--config", "r/config.yaml")
        monkeypatch.chdir(tmp_path)
        begin("--config", "here/r/config.yaml", "--run_dir", "here/r")
        begin("--config=here/r/config.yaml", "--run_dir=new")
        begin("--config", "own.yaml")
    says = r"^run_dir: here/r/config\.yaml names r, so .*the run in here/r\. To resume it, add --run_dir here/r\.$"
    with pytest.warns(UserWarning, match=says):
        begin("--config", "here/r/config.yaml")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("torchvision:mnist", "torchvision:MNIST"),
        ("torchvision:Emnist-MNIST", "torchvision:EMNIST-mnist"),
        ("TORCHVISION:food102", "torchvision:Food101"),
        ("mnist", "torchvision:MNIST"),
        ("FashionMNIST", "torchvision:FashionMNIST"),
        ("CIFAR01", "cifar10"),
        ("CIFAR-100", "cifar100"),
    ],
)
def test_capitals_and_the_library_may_be_wrong_in_the_name_of_a_data_set(name, hint):
    with pytest.raises(InputError) as error:
        load_images(name, Path())
    assert str(error.value).endswith(f" Did you mean {hint!r}?")
    with pytest.raises(InputError) as error:
        main_of("corrupt")(["--dataset", name, "--out", "o"])
    assert str(error.value).endswith(f" Did you mean {hint!r}?")


def test_names_that_differ_in_their_capitals_alone_are_all_suggested():
    assert nearest("CAt", ["cat", "Cat", "dog"], how_many=2) == " Did you mean 'cat', 'Cat'?"
    assert nearest("CAt", ["cat", "Cat", "dog"]) == " Did you mean 'cat'?"
    assert nearest("horse", ["cat", "timm:dog"]) == ""


@pytest.mark.parametrize(("command", "option"), [("corrupt", "severity"), ("train", "publish")])
def test_an_option_like_no_other_is_not_given_a_hint(command, option):
    with pytest.raises(InputError) as error:
        main_of(command)([f"--{option}", "3"])
    prog = f"python -m fastmagn.{command}"
    assert str(error.value) == f"--{option}: is not an option of {prog}. {prog} --help lists all options."


def test_what_other_commands_call_an_option_is_known():
    with pytest.raises(InputError, match=r"^--out: is not an option of .*\. Did you mean 'run_dir'\?$"):
        main_of("train")(["--out", "runs/mine"])


def test_every_command_is_here():
    assert {command for command, *_ in MISSPELT} == set(VERBS)


@pytest.mark.parametrize(
    ("command", "arguments", "option", "known"),
    MISSPELT,
    ids=[f"{command} {' '.join(arguments)}" for command, arguments, *_ in MISSPELT],
)
def test_a_misspelt_option_is_named_with_the_nearest(command, arguments, option, known):
    with pytest.raises(InputError) as error:
        main_of(command)(arguments)
    expected = f"--{option}: is not an option of python -m fastmagn.{command}. Did you mean {known!r}?"
    assert str(error.value) == expected


@pytest.mark.parametrize("command", VERBS)
def test_an_option_like_no_other_is_named(command):
    with pytest.raises(InputError) as error:
        main_of(command)(["--zzqqxx", "1"])
    program = f"python -m fastmagn.{command}"
    assert str(error.value) == f"--zzqqxx: is not an option of {program}. {program} --help lists all options."


@pytest.mark.parametrize(
    ("command", "arguments", "fragments"),
    [
        ("evaluate", [], ["--run", "--logits", "required"]),
        ("evaluate", ["--run_dir", "r", "--logits", "l"], ["--logits: not allowed with argument --run/--run_dir"]),
        ("export", ["--run", "r", "--out", "o.onnx"], ["format", "required"]),
        ("export", ["--run", "r", "--format", "onxx", "--out", "o.onnx"], ["onxx", "safetensors"]),
        ("theory", ["r", "--out", "o", "--num_images", "few"], ["num_images", "few"]),
        ("sweep", ["--num_trials", "few"], ["num_trials: got 'few'; expected a whole number."]),
    ],
)
def test_a_missing_or_wrong_value_is_one_line(command, arguments, fragments):
    with pytest.raises(InputError) as error:
        main_of(command)(arguments)
    assert "\n" not in str(error.value)
    assert "is not an option" not in str(error.value)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_a_misspelt_field_of_a_corruption_file_is_named(tmp_path):
    file = tmp_path / "set.yaml"
    file.write_text("num_imges: 3\n")
    with pytest.raises(InputError, match="Did you mean 'num_images'"):
        main_of("corrupt")(["--config", str(file), "--out", "o"])


def test_a_config_of_values():
    values = plain(Config(method="magn"))
    del values["eval"], values["train"]["epochs"]
    assert config_of(values) == Config(method="magn")
    with pytest.raises(InputError, match=r"train\.epochs: got 0; expected 1 or more"):
        config_of({"train": {"epochs": 0}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": "red"}, "config: colour: is not a field of this version."),
        ({"train": {"epoch": 3}}, "config: train.epoch: is not a field of this version. Did you mean 'train.epochs'?"),
        (
            {"train": {"epochs": "many"}},
            "config: this version cannot read it (train.epochs: got 'many'; expected a whole number).",
        ),
        ({"train": "other.yaml"}, "config: train: is not a mapping of its fields."),
        ({"data": {"class_path": "payload.X"}}, "config: data.class_path: is not a field of this version."),
        ({"data.class_path": "payload.X"}, "config: data.class_path: is not a field of this version."),
        ({"data": "{class_path: payload.X}"}, "config: data: is not a mapping of its fields."),
        ({"run_dir": {"class_path": "payload.X"}}, "config: this version cannot read it "),
        ({"train": {"compile": "{class_path: payload.X}"}}, "config: this version cannot read it "),
    ],
)
def test_values_of_unknown_origin_run_no_code_and_name_no_file(values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "payload.py").write_text("open('marker', 'w').close()\nclass X: pass\n")
    (tmp_path / "other.yaml").write_text("epochs: 3\n")
    with pytest.raises(InputError) as error:
        config_of(values)
    assert message in str(error.value)
    assert not (tmp_path / "marker").exists()


def test_a_whole_number_above_all_floats_is_one_line(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"optim: {{lr: {10**400}}}\n")
    for arguments in (["--config", str(path)], ["--optim.lr", str(10**400)]):
        with pytest.raises(InputError) as error:
            main_of("train")(arguments)
        assert str(error.value) == "arguments: got a whole number of over 308 digits; expected numbers below 1e308."


@pytest.mark.parametrize("text", ["", "\n", "# train:\n#   epochs: 3\n"])
def test_a_file_without_fields_is_refused(text, tmp_path):
    """As a write that failed leaves it; a run of nothing but defaults would start."""
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        main_of("train")(["--config", str(path)])
    assert str(error.value) == f"{path}: has no fields; expected some, such as `train: {{epochs: 3}}`."


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train: {epochs: 3}\noptim: {lr: 0.1}\ntrain: {seed: 1}\n", "line 3 repeats train of line 1"),
        ("train:\n  epochs: 3\n  seed: 1\n  epochs: 4\n", "line 4 repeats epochs of line 2"),
        ("{train: {seed: 1}, train: {seed: 2}}", "line 1 repeats train of line 1"),
        ("- a: 1\n- b: 2\n  c: 3\n  b: 4\n", "line 4 repeats b of line 2"),
    ],
)
def test_a_repeated_key_is_refused(text, fault, tmp_path):
    """YAML's readers keep the last one, without a word."""
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        main_of("train")(["--config", str(path)])
    assert str(error.value) == f"{path}: {fault}; expected plain fields and values."


@pytest.mark.parametrize("number", ["010", "-017", "0_7"])
def test_an_octal_number_of_yaml_is_refused(number, tmp_path):
    """The command line reads 010 as 10, YAML as 8."""
    path = tmp_path / "own.yaml"
    path.write_text(f"train:\n  seed: {number}\n")
    with pytest.raises(InputError, match=rf"line 2 has '{number}', which YAML reads as octal; leave out the zeros"):
        main_of("train")(["--config", str(path)])
    path.write_text("data: {dir: '010', num_workers: 0, min_crop_area: 0.5}\noptim: {step_at: 60}\n")
    config = parse_config(["--config", str(path)], "test", "")
    assert (config.data.dir, config.data.num_workers, config.data.min_crop_area) == (Path("010"), 0, 0.5)


def test_one_step_is_a_number_in_yaml(tmp_path):
    """60,120 is a text for YAML, 60 is not."""
    path = tmp_path / "own.yaml"
    of_command_line = parse_config(["--optim.step_at", "60"], "test", "")
    for text in ("60", "'60'"):
        path.write_text(f"optim: {{step_at: {text}}}\n")
        assert parse_config(["--config", str(path)], "test", "") == of_command_line
        assert flatten(of_command_line)["optim.step_at"] == "60"
    path.write_text("optim: {step_at: 0}\n")
    with pytest.raises(InputError, match=r"^optim\.step_at: got 0; expected rising numbers of epochs with commas"):
        parse_config(["--config", str(path)], "test", "")


def test_a_folder_is_not_a_configuration(tmp_path):
    with pytest.raises(InputError, match=f"config: {tmp_path} is not a file, nor is it a shipped configuration"):
        main_of("train")(["--config", str(tmp_path)])


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("train", ["--run_dir", "runs/\udcff"]),
        ("corrupt", ["--dataset", "digits", "--out", "runs/\udcff"]),
        ("report", ["runs/\udcff", "--out", "report"]),
        ("sweep", ["--grid", "train.seed=0,1", "--out", "runs/\udcff"]),
        ("export", ["--run", "runs/\udcff", "--format", "onnx", "--out", "m.onnx"]),
        ("theory", ["runs/\udcff", "--out", "report"]),
        ("evaluate", ["--run", "runs/\udcff"]),
    ],
)
def test_a_name_that_is_not_utf8_is_refused(command, arguments):
    with pytest.raises(
        InputError, match=r"^(\w+: )?'runs/.udcff' is not UTF-8; expected names in UTF-8\. Rename the file"
    ):
        main_of(command)(arguments)

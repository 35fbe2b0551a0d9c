"""The command line, the YAML files and their errors."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from fastmagn.cli import flatten, parse_config, plain, to_yaml
from fastmagn.config import (
    AttackConfig,
    AugmentConfig,
    Config,
    EvalConfig,
    LossConfig,
    MixingConfig,
    OptimConfig,
    TrainConfig,
)
from fastmagn.data import DATASETS
from fastmagn.errors import InputError
from fastmagn.methods import METHODS
from fastmagn.models import MODELS

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def parse(*arguments: str) -> Config:
    return parse_config(list(arguments), "prog", "A test.")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_names_what_exists(path):
    config = parse("--config", str(path))
    assert config.method in METHODS
    assert config.model.name in MODELS
    assert config.data.name in DATASETS
    given = yaml.safe_load(path.read_text())
    flat = flatten(config)
    for section, fields in given.items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            assert flat[f"{section}.{name}"] == value


def test_no_argument_is_the_quickstart():
    assert parse() == Config()
    assert parse("--config", str(ROOT / "configs" / "digits_quickstart.yaml")) == Config()


@pytest.mark.parametrize(("name", "num_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_papers_recipe(name, num_classes):
    """Section 4 of the paper, and the design's decisions where the paper is silent."""
    config = parse("--config", str(ROOT / "configs" / f"{name}_magn_augmix.yaml"))
    assert (config.method, config.data.name, config.model.name) == ("magn_augmix", name, "resnet18")
    assert (config.train.epochs, config.train.batch_size) == (150, 512)
    assert config.optim == OptimConfig(
        lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="step", step_epochs=50, step_factor=0.1
    )
    assert config.loss == LossConfig(consistency_weight=3, jsd_weight=12)
    assert config.augment == AugmentConfig(
        aug_severity=10,
        random_aug_severity=True,
        sigma_max=0.2,
        crop_padding_px=4,
        horizontal_flip=True,
        color_jitter=0.25,
        rotation_deg=2,
        mixture_width=3,
        mixture_depth=-1,
        num_noise_samples=1,
    )


def test_arguments_override_the_file_in_order():
    path = str(ROOT / "configs" / "cifar10_magn_augmix.yaml")
    config = parse("--config", path, "--method", "standard", "--train.seed", "7", "--data.dir", "elsewhere")
    assert (config.method, config.train.seed, str(config.data.dir)) == ("standard", 7, "elsewhere")
    assert config.train.epochs == 150


def test_resolved_yaml_reads_back_equal(tmp_path):
    config = parse(
        "--method", "magn", "--run_dir", str(tmp_path / "a b"), "--train.compile", "true", "--optim.lr", "1e-3"
    )
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert parse("--config", str(path)) == config


def test_print_config_prints_yaml_that_loads(capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        parse("--method", "magn", "--print_config")
    assert stop.value.code == 0
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert parse("--config", str(path)) == dataclasses.replace(Config(), method="magn")


def test_help_describes_every_field(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    for name in flatten(Config()):
        assert f"--{name}" in text, name
    sections = (AttackConfig, AugmentConfig, EvalConfig, LossConfig, MixingConfig, OptimConfig, TrainConfig)
    for section in (Config, *sections):
        for field in dataclasses.fields(section):
            if dataclasses.is_dataclass(field.type):
                continue
            assert f"{field.name}:" in section.__doc__, f"{section.__name__}.{field.name} has no sentence"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augment.aug_severity", "12"], "augment.aug_severity: got 12; expected 1..10."),
        (["--augment.mixture_depth", "0"], "augment.mixture_depth: got 0; expected -1 (drawn from 1, 2, 3) or 1..8."),
        (["--augment.color_jitter", "1.5"], "augment.color_jitter: got 1.5; expected 0..1."),
        (["--train.epochs", "0"], "train.epochs: got 0; expected 1 or more."),
        (["--train.seed", "-1"], "train.seed: got -1; expected 0..2^64 - 1."),
        (["--optim.lr", "0"], "optim.lr: got 0.0; expected a number above 0."),
        (["--optim.lr", ".nan"], "optim.lr: got nan; expected a number above 0."),
        (["--augment.rse_sigma", "-1"], "augment.rse_sigma: got -1.0; expected 0..10."),
        (["--mixing.cutout_px", "15"], "mixing.cutout_px: got 15; expected an even number in 2..256."),
        (["--mixing.mixup_alpha", "0"], "mixing.mixup_alpha: got 0.0; expected a number above 0, up to 100."),
        (["--mixing.cutmix_alpha", "-1"], "mixing.cutmix_alpha: got -1.0; expected a number above 0, up to 100."),
        (["--mixing.cutmix_probability", "2"], "mixing.cutmix_probability: got 2.0; expected 0..1."),
        (["--attack.epsilon", "8"], "attack.epsilon: got 8.0; expected 0..1."),
        (["--attack.steps", "0"], "attack.steps: got 0; expected 1 or more."),
        (["--attack.step_scale", "0"], "attack.step_scale: got 0.0; expected a number above 0."),
        (["--loss.jsd_weight", "-1"], "loss.jsd_weight: got -1.0; expected 0 or more."),
        (["--loss.trades_weight", "-1"], "loss.trades_weight: got -1.0; expected 0 or more."),
        (["--eval.rse_draws", "0"], "eval.rse_draws: got 0; expected 1 or more."),
        (["--eval.num_bins", "0"], "eval.num_bins: got 0; expected 1 or more."),
        (["--data.num_validation_images", "-5"], "data.num_validation_images: got -5; expected 0 or more."),
    ],
)
def test_a_value_out_of_range_is_one_line_with_the_fields_name(arguments, message):
    with pytest.raises(InputError) as error:
        parse(*arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--augment.aug_sevrity", "2"], ["--augment.aug_sevrity", "Did you mean 'augment.aug_severity'?"]),
        (["--train.epochs", "many"], ['"train.epochs"', "many"]),
        (["--train.amp", "fp8"], ['"train.amp"', "fp8", "bf16"]),
        (["--train.compile", "maybe"], ['"train.compile"', "maybe"]),
        (["stray"], ["stray"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "does not exist"]),
    ],
)
def test_a_typo_on_the_command_line_is_named(arguments, fragments):
    with pytest.raises(InputError) as error:
        parse(*arguments)
    assert "\n" not in str(error.value)
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("augment:\n  aug_sevrity: 3\n", ["augment", "aug_sevrity", "Did you mean 'augment.aug_severity'?"]),
        ("augmnt:\n  aug_severity: 3\n", ["augmnt", "Did you mean 'augment.aug_severity'?"]),
        ("metod: magn\n", ["metod", "Did you mean 'method'?"]),
        ("augment:\n  aug_severity: [3\n", ["line 2"]),
        ("augment:\n  aug_severity: three\n", ["augment.aug_severity", "three"]),
        ("train:\n  batch_size: 1.5\n", ["train.batch_size", "1.5"]),
        ("!!python/object/apply:os.system ['touch pwned']\n", ["python/object/apply"]),
    ],
)
def test_a_typo_in_yaml_is_named(text, fragments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        parse("--config", "bad.yaml")
    assert "\n" not in str(error.value)
    for fragment in fragments:
        assert fragment in str(error.value)
    assert not (tmp_path / "pwned").exists()


def test_configs_are_frozen_and_plain_is_json_like():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().method = "magn"
    values = plain(Config())
    assert values["data"]["dir"] == "data"
    assert values["eval"]["corrupted_dir"] is None

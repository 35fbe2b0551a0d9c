"""The command line, the YAML files and their errors."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from fastmagn.config.afa_schema import AfaConfig
from fastmagn.config.command_line import parse_config
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.config.noisymix_schema import NoisyMixConfig
from fastmagn.config.prime_schema import PrimeConfig
from fastmagn.config.schema import (
    AttackConfig,
    AugmentConfig,
    Config,
    DataConfig,
    LossConfig,
    MixingConfig,
    OptimConfig,
    TrainConfig,
)
from fastmagn.config.spectra_schema import SpectraConfig
from fastmagn.config.text import flatten, plain, to_yaml
from fastmagn.data import DATASETS, ENCODED, OWN
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.exporting.card import ABOUT_DATA
from fastmagn.methods.effect import without_effect
from fastmagn.methods.table import METHODS
from fastmagn.models import MODELS
from fastmagn.reporting.names import DATA_TITLES

ROOT = Path(__file__).parent.parent.parent
CONFIGS = sorted(  # a sweep's file is of another kind: tests/sweeping/test_definition.py
    path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "sweeps"
)


def parse(*arguments: str) -> Config:
    return parse_config(list(arguments), "prog", "A test.")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_shipped_config_loads_and_names_what_exists(path):
    config = parse("--config", str(path))
    assert config.method in METHODS
    assert config.model.name in MODELS or config.model.name == "timm:convnext_tiny"
    assert config.data.name in DATASETS
    given = yaml.safe_load(path.read_text())
    flat = flatten(config)
    for section, fields in given.items():
        for name, value in fields.items() if isinstance(fields, dict) else ():
            assert flat[f"{section}.{name}"] == value
    assert without_effect(config, decodes_files=config.data.name in ENCODED) == []


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("digits_quickstart", "digits_quickstart.yaml"),
        ("cifar10_small_cpu.yaml", "cifar10_small_cpu.yaml"),
        ("configs/cifar10_small_cpu.yaml", "cifar10_small_cpu.yaml"),
        ("paper/table1/magn", "paper/table1/magn.yaml"),
        ("configs/paper/table4/sigma_max_0.4", "paper/table4/sigma_max_0.4.yaml"),
    ],
)
def test_a_shipped_config_is_found_by_its_name(name, path, tmp_path, monkeypatch):
    wanted = parse("--config", str(ROOT / "configs" / path))
    monkeypatch.chdir(tmp_path)
    assert parse("--config", name) == parse(f"--config={name}") == wanted


def test_a_file_that_is_here_goes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits_quickstart.yaml").write_text("method: rse\n")
    assert parse("--config", "digits_quickstart.yaml").method == "rse"
    assert parse("--config", "digits_quickstart") == Config()
    assert parse("--config", "method: trades").method == "trades", "YAML itself"


def test_no_argument_is_the_quickstart():
    assert parse() == Config()
    assert parse("--config", str(ROOT / "configs" / "digits_quickstart.yaml")) == Config()


def test_the_quickstart_file_holds_every_field_with_its_default():
    given = yaml.safe_load((ROOT / "configs" / "digits_quickstart.yaml").read_text())
    assert given == plain(Config())


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


PAPER_METHODS = ("standard", "at", "trades", "rse", "augmix", "magn", "magn_augmix")
OWN_RECIPES = ("prime", "apr", "hybridaugment", "afa", "noisymix")  # rivals with their authors' recipe
PAPER = ROOT / "configs" / "paper"


def paper_rows() -> dict[str, tuple[str, str, str]]:
    """The paper's tables: file -> data set, network, method."""
    rows = {}
    for table, data in (("table1", "cifar10"), ("table5", "cifar100")):
        rows |= {f"{table}/{method}": (data, "resnet18", method) for method in PAPER_METHODS}
        for network in ("densenet121", "inception_v3"):
            for method in ("standard", "augmix", "magn_augmix"):
                rows[f"table2_3/{data}_{network}_{method}"] = (data, network, method)
    for name in ("sigma_max_0.4", "consistency_weight_5", "jsd_weight_10"):
        rows[f"table4/{name}"] = ("cifar10", "resnet18", "magn_augmix")
    return rows


def test_every_row_of_the_papers_tables_has_its_file_and_no_file_is_left_over():
    for file, row in paper_rows().items():
        config = parse("--config", str(PAPER / f"{file}.yaml"))
        assert (config.data.name, config.model.name, config.method) == row
    tables = {str(path.relative_to(PAPER).with_suffix("")) for path in PAPER.glob("table*/*.yaml")}
    assert tables == paper_rows().keys()


def test_paper_configs_differ_in_what_they_are_about_only():
    recipe = parse("--config", str(ROOT / "configs" / "cifar10_magn_augmix.yaml"))
    folders = set()
    for path in [*PAPER.glob("table*/*.yaml"), *PAPER.glob("rivals/*.yaml")]:
        config = parse("--config", str(path))
        folders.add(config.run_dir or (config.data.name, config.method, config.model.name))
        if config.method in OWN_RECIPES:
            continue
        assert (config.train, config.optim, config.eval) == (recipe.train, recipe.optim, recipe.eval), path
        if config.method == "augmix":
            assert (config.augment.aug_severity, config.augment.random_aug_severity) == (3, False)
        for name in ("crop_padding_px", "horizontal_flip", "color_jitter", "rotation_deg", "mixture_width", "backend"):
            assert getattr(config.augment, name) == getattr(recipe.augment, name), path
        assert config.mixing.cutout_px == (8 if path.stem == "cifar100_cutout" else 16)
    assert len(folders) == len([*PAPER.glob("table*/*.yaml"), *PAPER.glob("rivals/*.yaml")])
    assert parse("--config", str(PAPER / "table1" / "magn_augmix.yaml")) == recipe
    recipe_100 = parse("--config", str(ROOT / "configs" / "cifar100_magn_augmix.yaml"))
    assert parse("--config", str(PAPER / "table5" / "magn_augmix.yaml")) == recipe_100


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("sigma_max_0.4", (3, 12, 0.4)),
        ("consistency_weight_5", (5, 12, 0.2)),
        ("jsd_weight_10", (3, 10, 0.2)),
    ],
)
def test_table_4_changes_one_value(name, changed):
    config = parse("--config", str(PAPER / "table4" / f"{name}.yaml"))
    assert (config.loss.consistency_weight, config.loss.jsd_weight, config.augment.sigma_max) == changed


def test_the_papers_attack_and_noise():
    """Section 4: 8/255, 7 steps of 2.5 epsilon / 7, sigma 0.1 for RSE; equation (3)'s lambda is the design's 3."""
    for table in ("table1", "table5"):
        for method in ("at", "trades"):
            attack = parse("--config", str(PAPER / table / f"{method}.yaml")).attack
            assert (attack.epsilon, attack.steps, attack.step_scale) == (8 / 255, 7, 2.5)
        assert parse("--config", str(PAPER / table / "trades.yaml")).loss.trades_weight == 3
        rse = parse("--config", str(PAPER / table / "rse.yaml"))
        assert (rse.augment.rse_sigma, rse.eval.rse_draws) == (0.1, 10)


@pytest.mark.parametrize("place", [0, 1, 3], ids=["before", "between", "after"])
@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]], ids=["two words", "one word"])
def test_options_override_the_files_wherever_they_stand_and_a_later_file_an_earlier_one(place, form, tmp_path):
    recipe, later = str(ROOT / "configs" / "cifar10_magn_augmix.yaml"), tmp_path / "later.yaml"
    later.write_text("data: {dir: there}\ntrain: {batch_size: 99, epochs: 9}\n")
    options = ["--method=standard", "--train.seed=7", "--data.dir=elsewhere"]
    files = [word.format(file) for file in (recipe, later) for word in form]
    config = parse(*options[:place], *files, *options[place:])
    assert (config.method, config.train.seed, str(config.data.dir)) == ("standard", 7, "elsewhere")
    assert (config.train.batch_size, config.train.epochs, config.model.name) == (99, 9, "resnet18")
    swapped = parse("--config", str(later), *options, "--config", recipe)
    assert (swapped.train.batch_size, swapped.train.epochs, swapped.train.seed) == (512, 150, 7)


def test_resolved_yaml_reads_back_equal(tmp_path):
    config = parse(
        "--method", "magn", "--run_dir", str(tmp_path / "a b"), "--train.compile", "true", "--optim.lr", "1e-3"
    )
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert parse("--config", str(path)) == config


# Texts that YAML reads as something else where they are not quoted, and names of files from all over the world.
TEXTS = [
    ("1e-3", "1e3", "-1E5", "+12e03", "1_.e3"),
    (".5e+1", "1.e3", "123", "0x1f", "1:30"),
    ("1_000", ".nan", "-.inf", "True", "off"),
    ("2020-01-01", "=", "<<", "- a", "a: b"),
    ("{a}", "[1,2]", "'x'", '"x"', "x #y"),
    ("x ", "  x", "!x", "*x", "%x"),
    ("|", "> x", "? x", "a\\b", "class_path"),
    ("a  " * 60 + "b", "\u3000", "研究\u3000データ", "a\xa0b", "می\u200cخواهم"),
    ("\U0001f468\u200d\U0001f469", "\ufeffx", "\u05d0\u200f!", "a\ue000b", "a\U0003fffdb"),
]


@pytest.mark.parametrize("texts", TEXTS, ids=range(len(TEXTS)))
def test_every_text_reads_back_equal(texts, tmp_path, capsys):
    fields = ("run_dir", "data.dir", "data.train_shards", "eval.corrupted_dir", "data.label_column")
    for shift in (0, 1):  # each text as a path and as a text
        arguments = [f"--{name}={text}" for name, text in zip(fields, texts[shift:] + texts[:shift], strict=True)]
        (tmp_path / "config.yaml").write_text(to_yaml(parse(*arguments)))
        with pytest.raises(SystemExit):
            parse(*arguments, "--print_config")
        (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
        for file in ("config.yaml", "printed.yaml"):
            flat = flatten(parse("--config", str(tmp_path / file)))
            assert [f"--{name}={flat[name]}" for name in fields] == arguments


@pytest.mark.parametrize("character", ["\x1b", "\x7f", "\x85", "\t", "\n", "\u2028", "\u202e", "\u2066"])
def test_a_file_with_what_no_line_can_show_is_refused(character, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"run_dir": f"a{character}b"}))
    with pytest.raises(InputError, match=r"config\.yaml: line 1 has a character that cannot be printed, in 'a\\"):
        parse("--config", str(path))


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
        assert f"--{name.replace('imports', 'import')} " in text, name
    sections = (AttackConfig, AugmentConfig, EvalConfig, LossConfig, MixingConfig, OptimConfig, PrimeConfig)
    sections += (SpectraConfig, TrainConfig, AfaConfig, NoisyMixConfig)
    for section in (Config, *sections):
        for field in dataclasses.fields(section):
            if dataclasses.is_dataclass(field.type):
                continue
            assert f"{field.name}:" in section.__doc__, f"{section.__name__}.{field.name} has no sentence"


def test_every_data_set_is_in_the_help_of_both_commands_in_reports_and_in_model_cards():
    for section in (DataConfig, CorruptConfig):
        names = {name.replace(name.partition(":")[2], "NAME") if ":" in name else name for name in DATASETS}
        assert "torchvision:NAME" in names
        assert all(re.search(rf"\b{name}\b", section.__doc__) for name in names), section
    named = {name for name in DATASETS if name not in OWN and ":" not in name}
    assert DATA_TITLES.keys() == ABOUT_DATA.keys() == named


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augment.aug_severity", "12"], "augment.aug_severity: got 12; expected 1..10."),
        (["--augment.mixture_depth", "0"], "augment.mixture_depth: got 0; expected -1 (drawn from 1, 2, 3) or 1..8."),
        (["--augment.color_jitter", "1.5"], "augment.color_jitter: got 1.5; expected 0..1."),
        (["--train.epochs", "0"], "train.epochs: got 0; expected 1 or more."),
        (["--train.seed", "-1"], "train.seed: got -1; expected 0..2^64 - 1."),
        (["--optim.lr", "0"], "optim.lr: got 0.0; expected a number above 0, and finite."),
        (["--optim.lr", ".nan"], "optim.lr: got nan; expected a number above 0, and finite."),
        (["--augment.rse_sigma", "-1"], "augment.rse_sigma: got -1.0; expected 0..10."),
        (["--mixing.cutout_px", "15"], "mixing.cutout_px: got 15; expected an even number in 2..256."),
        (["--mixing.mixup_alpha", "0"], "mixing.mixup_alpha: got 0.0; expected a number above 0, up to 100."),
        (["--mixing.cutmix_alpha", "-1"], "mixing.cutmix_alpha: got -1.0; expected a number above 0, up to 100."),
        (["--mixing.cutmix_probability", "2"], "mixing.cutmix_probability: got 2.0; expected 0..1."),
        (["--prime.color_frequencies", "0"], "prime.color_frequencies: got 0; expected 1..500."),
        (["--prime.color_variance", "2"], "prime.color_variance: got 2.0; expected 0..1."),
        (["--prime.displacement_cut", "2"], "prime.displacement_cut: got 2; expected 3..500."),
        (["--prime.filter_std", "-1"], "prime.filter_std: got -1.0; expected 0..100."),
        (["--spectra.variant", "sp"], "spectra.variant: got 'sp'; expected p, s or ps."),
        (["--spectra.pair_probability", "1.1"], "spectra.pair_probability: got 1.1; expected 0..1."),
        (["--spectra.single_probability", "-1"], "spectra.single_probability: got -1.0; expected 0..1."),
        (["--spectra.blur_px", "4"], "spectra.blur_px: got 4; expected an odd number in 3..15."),
        (["--spectra.blur_sigma_px", "0"], "spectra.blur_sigma_px: got 0.0; expected a number above 0, up to 10."),
        (["--afa.mean_strength", "0"], "afa.mean_strength: got 0.0; expected a number above 0, up to 1000."),
        (["--afa.min_strength", "-1"], "afa.min_strength: got -1.0; expected 0..1000."),
        (
            ["--afa.max_frequency", "-1"],
            "afa.max_frequency: got -1; expected 0 (the image's side in pixels) or 1..4096.",
        ),
        (["--noisymix.alpha", "0"], "noisymix.alpha: got 0.0; expected a number above 0, up to 100."),
        (["--noisymix.additive_noise", "11"], "noisymix.additive_noise: got 11.0; expected 0..10."),
        (["--noisymix.multiplicative_noise", "-1"], "noisymix.multiplicative_noise: got -1.0; expected 0..10."),
        (["--noisymix.noise_sparsity", "1"], "noisymix.noise_sparsity: got 1.0; expected 0 <= noise_sparsity < 1."),
        (["--attack.epsilon", "8"], "attack.epsilon: got 8.0; expected 0..1."),
        (["--attack.steps", "0"], "attack.steps: got 0; expected 1 or more."),
        (["--attack.step_scale", "0"], "attack.step_scale: got 0.0; expected a number above 0."),
        (["--loss.jsd_weight", "-1"], "loss.jsd_weight: got -1.0; expected 0 or more, and finite."),
        (["--loss.consistency_weight", "1e999"], "loss.consistency_weight: got inf; expected 0 or more, and finite."),
        (["--loss.trades_weight", "-1"], "loss.trades_weight: got -1.0; expected 0 or more, and finite."),
        (["--eval.rse_draws", "0"], "eval.rse_draws: got 0; expected 1 or more."),
        (["--eval.num_bins", "0"], "eval.num_bins: got 0; expected 1 or more."),
        (["--data.num_validation_images", "-5"], "data.num_validation_images: got -5; expected 0 or more."),
    ],
)
def test_a_value_out_of_range_is_one_line_with_the_fields_name(arguments, message):
    with pytest.raises(InputError) as error:
        parse(*arguments)
    assert str(error.value) == message


FLOATS = [name for name, value in flatten(Config()).items() if isinstance(value, float)]


@pytest.mark.parametrize("value", [".inf", ".nan"])
@pytest.mark.parametrize("name", FLOATS)
def test_no_number_is_infinite(name, value):
    """results.json, written after the training, cannot hold it."""
    with pytest.raises(InputError, match=rf"^{re.escape(name)}: got {value[1:]}; expected "):
        parse(f"--{name}", value)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--augment.aug_sevrity", "2"], ["--augment.aug_sevrity", "Did you mean 'augment.aug_severity'?"]),
        (["--train.epochs", "many"], ["train.epochs: got 'many'; expected a whole number."]),
        (["--train.amp", "fp8"], ["train.amp: got 'fp8'; expected auto, bf16, fp16 or float32."]),
        (["--train.compile", "maybe"], ["train.compile: got 'maybe'; expected auto, true or false."]),
        (["stray"], ["stray"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml", "does not exist"]),
        (["--config", "paper/table1/magm"], ["paper/table1/magm does not exist", "Did you mean 'paper/table1/magn', "]),
        (["--config", "configs/digits_quikstart.yaml"], ["Did you mean 'digits_quickstart'?"]),
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


def write_chain(folder: Path) -> None:
    (folder / "deltas").mkdir()
    (folder / "root.yaml").write_text("method: magn\naugment:\n  aug_severity: 7\n  sigma_max: 0.4\n")
    (folder / "deltas" / "middle.yaml").write_text("augment:\n  sigma_max: 1e-1\nbase: ../root.yaml  # the recipe\n")
    (folder / "deltas" / "leaf.yaml").write_text("# no more than\nbase: 'middle.yaml'\n")
    (folder / "deltas" / "other.yaml").write_text("base: middle.yaml\nmethod: at\naugment:\n  rotation_deg: 0\n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("root.yaml", ("magn", 7, 0.4, 2.0)),
        ("deltas/middle.yaml", ("magn", 7, 0.1, 2.0)),
        ("deltas/leaf.yaml", ("magn", 7, 0.1, 2.0)),
        ("deltas/other.yaml", ("at", 7, 0.1, 0.0)),
    ],
)
def test_a_base_is_what_a_file_starts_from(name, expected, tmp_path):
    write_chain(tmp_path)
    path = str(tmp_path / name)
    for arguments in (["--config", path], [f"--config={path}"]):
        config = parse(*arguments, "--train.seed", "3")
        augment = config.augment
        assert (config.method, augment.aug_severity, augment.sigma_max, augment.rotation_deg) == expected
        assert config.train.seed == 3
    resolved = tmp_path / "config.yaml"
    resolved.write_text(to_yaml(config))
    assert "base" not in yaml.safe_load(resolved.read_text())
    assert parse("--config", str(resolved)) == config
    overridden = parse("--augment.sigma_max", "0.7", "--config", path, "--augment.aug_severity", "1")
    assert (overridden.augment.sigma_max, overridden.augment.aug_severity) == (0.7, 1)


@pytest.mark.parametrize(
    "line",
    [
        "\ufeffbase: root.yaml",
        "base : root.yaml  # it",
        '"base": root.yaml',
        "---\nbase: root.yaml",
        "base: root.yaml\r",
    ],
    ids=["byte-order mark", "space", "quotes", "start of a document", "Windows' lines"],
)
def test_a_base_may_be_written_in_all_of_yamls_ways(line, tmp_path):
    (tmp_path / "root.yaml").write_text("\ufeffmethod: at\ntrain: {epochs: 3}\n")
    (tmp_path / "a.yaml").write_bytes(f"{line}\noptim: {{lr: 1e-3}}\n".encode())
    config = parse("--config", str(tmp_path / "a.yaml"))
    assert (config.method, config.train.epochs, config.optim.lr) == ("at", 3, 0.001)


@pytest.mark.parametrize("name", ["12:31/c.yaml", "c:d", "12:31"])
def test_a_files_name_may_have_a_colon(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^config: {name} does not exist, nor is it a shipped configuration"):
        parse("--config", name)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("method: at\n")
    assert parse("--config", name).method == "at"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    assert parse("--config", f"~/{name}").method == "at"


def test_yaml_itself_may_be_longer_than_a_files_name():
    assert parse("--config", f"train: {{epochs: 3}}  # {'x' * 5000}").train.epochs == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.yaml": "{base: b.yaml, method: at}\n"},
            "a.yaml: base: got it within braces; expected a line of its own, base: OTHER.yaml.",
        ),
        (
            {"a.yaml": "base: a.yaml\n"},
            "a.yaml: base: got 'a.yaml', which leads back to itself; expected a file without",
        ),
        (
            {
                "a.yaml": "base: b.yaml\nmethod: at\n",
                "b.yaml": "method: at\nbase: c.yaml\n",
                "c.yaml": "base: ./a.yaml\n",
            },
            "c.yaml: base: got './a.yaml', which leads back to itself; expected a file without this one.",
        ),
        (
            {"a.yaml": "base: no.yaml\n"},
            "a.yaml: base: got 'no.yaml'; expected a YAML file, but no.yaml is not a file.",
        ),
        ({"a.yaml": "base:\n"}, "a.yaml: base: got ''; expected a YAML file, but . is not a file."),
        ({"a.yaml": "base: b.yaml\n", "b.yaml": "metod: at\n"}, "Did you mean 'method'?"),
        ({"a.yaml": "base: b.yaml\nmetod: at\n", "b.yaml": "method: at\n"}, "Did you mean 'method'?"),
        ({"a.yaml": "train:\n  base: b.yaml\n", "b.yaml": "method: at\n"}, "train.base: is not a field."),
    ],
)
def test_a_base_that_cannot_be_is_one_clear_error(files, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        parse("--config", "a.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_configs_are_frozen_and_plain_is_json_like():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().method = "magn"
    values = plain(Config())
    assert values["data"]["dir"] == "data"
    assert values["eval"]["corrupted_dir"] is None


def test_configurations_for_own_images_differ_from_their_bases_in_the_data():
    def config(name: str) -> Config:
        return parse("--config", str(ROOT / "configs" / name))

    arrays, cifar = config("npz_small_cpu.yaml"), config("cifar10_small_cpu.yaml")
    assert (arrays.data.name, arrays.augment.horizontal_flip) == ("npz", False)
    assert arrays.eval.num_images == 0, "a set may have fewer test images than CIFAR-10"
    assert dataclasses.replace(arrays, data=cifar.data, augment=cifar.augment, eval=cifar.eval) == cifar
    assert dataclasses.replace(arrays.eval, num_images=cifar.eval.num_images) == cifar.eval
    food, folder = config("finetune_food101.yaml"), config("finetune_folder.yaml")
    assert food.data.name == "torchvision:Food101"
    assert dataclasses.replace(food, data=folder.data) == folder
    timm = config("finetune_timm.yaml")
    assert (timm.model.name, timm.optim.name, timm.optim.clip_norm) == ("timm:convnext_tiny", "adamw", 1.0)
    assert dataclasses.replace(timm, model=folder.model, optim=folder.optim) == folder
    assert without_effect(timm, decodes_files=True) == []

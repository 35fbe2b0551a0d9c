"""What a sweep's command line and YAML mean: its trials, their names, and what is refused before anything starts."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, to_yaml
from fastmagn.errors import InputError
from fastmagn.sweep import main
from fastmagn.sweeping.arguments import Machines, parse_arguments
from fastmagn.sweeping.definition import (
    FIELD_TYPES,
    Range,
    Trial,
    check_definition,
    definition,
    draw,
    keep_definition,
    make_trials,
)
from fastmagn.sweeping.sweep import check_names

ROOT = Path(__file__).parent.parent.parent
PAPER = json.loads((ROOT / "fastmagn" / "reporting" / "paper_results.json").read_text())


def trials_of(*arguments: str) -> list[Trial]:
    request = parse_arguments(list(arguments))
    return make_trials(request.arguments, request.search, request.out)[1]


def test_a_grid_is_the_product_of_its_fields():
    trials = trials_of("--grid", "loss.jsd_weight=10,12", "--grid", "train.seed=0,1,2", "--train.epochs", "5")
    expected = list(itertools.product([10.0, 12.0], [0, 1, 2]))
    assert [(trial.config.loss.jsd_weight, trial.config.train.seed) for trial in trials] == expected
    assert all(trial.config.train.epochs == 5 for trial in trials)
    assert trials[0].name == "jsd_weight-10.0_seed-0"
    assert [trial.config.run_dir for trial in trials] == [
        Path("runs/sweep").absolute() / trial.name for trial in trials
    ]


def test_a_random_search_draws_each_field_by_itself():
    arguments = ["--random", "optim.lr=0.01..0.1:log", "--random", "train.batch_size=16..64", "--num_trials", "8"]
    trials = trials_of(*arguments)
    assert len(trials) == 8
    assert all(0.01 <= trial.config.optim.lr <= 0.1 for trial in trials)
    assert all(16 <= trial.config.train.batch_size <= 64 for trial in trials)
    more = trials_of(*arguments[:-1], "12")
    assert [trial.values for trial in more[:8]] == [trial.values for trial in trials], "more draws keep the first ones"
    other = trials_of(*arguments, "--search_seed", "1")
    assert not {trial.name for trial in other} & {trial.name for trial in trials}


@pytest.mark.parametrize(
    ("field", "limits", "expected"),
    [
        ("optim.lr", Range(0.01, 0.1, True), stats.loguniform(0.01, 0.1)),
        ("augment.sigma_max", Range(0.0, 0.5, False), stats.uniform(0, 0.5)),
    ],
)
def test_draws_are_distributed_as_said(field, limits, expected):
    draws = [float(draw(field, limits, 0, number)) for number in range(2000)]
    assert stats.kstest(draws, expected.cdf).pvalue > 1e-3


NARROW = [
    Range(0.999, 0.9999, False),
    Range(0.9995, 0.99999, False),
    Range(0.999, 0.9999, True),
    Range(0.5, 0.5000001, False),
    Range(0.1234567, 0.1234568, True),
    Range(1e-12, 1.00001e-12, False),
]


@pytest.mark.parametrize("limits", NARROW, ids=str)
def test_draws_from_a_narrow_range_differ_and_stay_in_it(limits):
    draws = [float(draw("train.ema_decay", limits, 0, number)) for number in range(50)]
    assert len(set(draws)) > 45
    assert all(limits.low <= value <= limits.high for value in draws)
    assert stats.kstest(draws, stats.uniform(limits.low, limits.high - limits.low).cdf).pvalue > 1e-3


def test_a_rounded_draw_stays_in_its_range():
    limits = Range(0.00012345, 0.5, False)
    draws = [float(draw("optim.lr", limits, 0, number)) for number in range(20_000)]
    assert min(draws) >= limits.low
    assert max(float(draw("optim.lr", Range(0.1, 0.99999, False), 0, number)) for number in range(20_000)) <= 0.99999


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Range(0.0, 0.5, False), ["0.1308", "0.08549", "0.4992"]),
        (Range(0.01, 0.1, True), ["0.01826", "0.01482", "0.09963"]),
        (Range(0.01, 0.1, False), ["0.03354", "0.02539", "0.09986"]),
        (Range(0.9, 0.999, False), ["0.9259", "0.9169", "0.9988"]),
        (Range(-1.0, 1.0, False), ["-0.4769", "-0.658", "0.9968"]),
    ],
    ids=str,
)
def test_draws_of_usual_ranges_are_those_of_sweeps_that_began_long_ago(limits, expected):
    assert [draw("augment.sigma_max", limits, 0, number) for number in range(3)] == expected


def test_whole_numbers_have_equal_shares():
    draws = [int(draw("train.epochs", Range(1, 5, False), 0, number)) for number in range(2000)]
    counts = np.bincount(draws, minlength=6)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3
    assert set(map(int, (draw("train.epochs", Range(1, 3, True), 0, number) for number in range(200)))) == {1, 2, 3}


@settings(max_examples=20)
@given(st.lists(st.floats(1e-6, 1e6).map(lambda value: f"{value:g}"), min_size=2, max_size=5, unique_by=float))
def test_names_are_safe_and_differ(values):
    trials = trials_of("--grid", f"optim.lr={','.join(values)}")
    assert len({trial.name for trial in trials}) == len(values)
    assert all(set(trial.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._+-") for trial in trials)


def test_names_that_are_long_or_alike_still_differ():
    folders = ",".join("x" * 200 + end for end in ("a", "b"))
    names = [trial.name for trial in trials_of("--grid", f"eval.corrupted_dir={folders}")]
    assert len(set(names)) == 2
    assert max(map(len, names)) < 255
    names = [trial.name for trial in trials_of("--grid", "model.name=timm:vit,timm-vit")]
    assert len(set(names)) == 2
    weights = trials_of("--grid", "train.batch_size=1,2", "--grid", "eval.batch_size=3,4")
    assert weights[0].name == "train.batch_size-1_eval.batch_size-3", "fields of one name keep their section"


def test_a_sweeps_folder_is_an_ordinary_run_dir(tmp_path):
    (trial, _) = trials_of("--grid", "train.seed=0,1", "--out", str(tmp_path))
    again = parse_config([f"--{name}={value}" for name, value in {"train.seed": 0}.items()], "test", "A test.")
    before = flatten(trial.config)
    assert {name: before[name] for name in before if name != "run_dir"} == {
        name: value for name, value in flatten(again).items() if name != "run_dir"
    }


REFUSED = [
    (["--grid", "loss.jsd_weigth=1,2"], r"got 'loss.jsd_weigth', which is not a field .*Did you mean 'loss.jsd_w"),
    (["--grid", "loss=1,2"], r"--grid: got 'loss', which is not a field"),
    (["--grid", "loss.jsd_weight=1,much"], r"loss\.jsd_weight: got 'much'"),
    (["--grid", "loss.jsd_weight=-1,1"], r"loss\.jsd_weight: got -1\.0; expected 0 or more"),
    (["--grid", "method=magn,magnn"], r"method: got 'magnn'; .*Did you mean 'magn'"),
    (["--grid", "model.name=resnet_small,resnet81"], r"model\.name: got 'resnet81'; .*Did you mean 'resnet18'"),
    (["--grid", "data.name=digits,cifar01"], r"data\.name: got 'cifar01'"),
    (["--grid", "train.seed"], r"--grid: got 'train\.seed'; expected section\.field=a,b,c"),
    (["--grid", "train.seed=0,,1"], r"--grid: got 'train\.seed=0,,1'"),
    (
        ["--grid", "train.seed=0,1", "--grid", "train.seed=2,3"],
        r"--grid: got train\.seed twice; expected each field onc",
    ),
    (
        ["--random", "optim.lr=0.1..0.2", "--random", "optim.lr=0.3..0.4", "--num_trials", "2"],
        r"--random: got optim\.lr twice; expected each field once",
    ),
    (["--grid", "train.seed=0,0"], r"trials 1 and 2 are the same: train\.seed 0"),
    (["--grid", "optim.lr=0.1,1e-1"], r"trials 1 and 2 are the same: optim\.lr 0\.1"),
    (["--grid", "run_dir=a,b"], r"--grid: got 'run_dir'; the sweep itself sets it. --out"),
    (["--grid", "train.seed=0,1", "--run_dir", "x"], r"got 'run_dir'; the sweep itself sets it"),
    (["--grid", "train.seed=0,1", "--train.epohcs", "3"], r"train\.epohcs.*Did you mean 'train\.epochs'"),
    (["--random", "optim.lr=0.1..0.01", "--num_trials", "2"], r"--random: optim\.lr: .*expected low below high"),
    (["--random", "optim.lr=0..1:log", "--num_trials", "2"], r"expected a range above 0 for :log"),
    (["--random", "optim.lr=0.1", "--num_trials", "2"], r"expected low\.\.high or low\.\.high:log"),
    (["--random", "train.epochs=1.5..3", "--num_trials", "2"], r"expected whole numbers"),
    (["--random", "method=0..1", "--num_trials", "2"], r"--random: method: is not a number; .*--grid method=a,b"),
    (["--random", "optim.lr=0.1..0.2"], r"--num_trials: got 0; expected 1 or more with --random"),
    (["--grid", "train.seed=0,1", "--num_trials", "2"], r"--num_trials: got 2; expected none without --random"),
    (
        ["--grid", "train.seed=0,1", "--random", "train.seed=0..9", "--num_trials", "2"],
        r"train\.seed varies in two ways",
    ),
    ([], r"sweep: no field varies"),
    (
        ["--grid", "train.seed=0,1", "--gpus_per_trial", "1.5"],
        r"--gpus_per_trial: got 1\.5; expected 0\.\.1, or a whole",
    ),
    (["--grid", "train.seed=0,1", "--cpus_per_trial", "0"], r"--cpus_per_trial: got 0\.0; expected a number above 0"),
    (["--grid", "train.seed=0,1", "--max_concurrent", "few"], r"max_concurrent: got 'few'; expected a whole number"),
    (["--grid", "train.seed=0,1", "--config", "absent.yaml"], r"absent\.yaml"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[" ".join(arguments) for arguments, _ in REFUSED])
def test_what_cannot_be_used_is_one_line_and_starts_nothing(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        main([*arguments, "--out", str(tmp_path / "sweep")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_every_field_has_a_type():
    assert FIELD_TYPES.keys() == flatten(Config()).keys()


def sweep_file(folder: Path, text: str) -> Path:
    path = folder / "sweep_of_mine.yaml"
    path.write_text(text)
    return path


def test_the_yaml_form_and_the_command_line_make_the_same_trials(tmp_path):
    (tmp_path / "base.yaml").write_text("method: magn\n")
    path = sweep_file(
        tmp_path,
        "base: base.yaml\nfields: {train.epochs: 4, optim.lr: 1e-2, train.compile: false}\n"
        "grid: {loss.consistency_weight: [3, 5]}\nrandom: {augment.sigma_max: 0.1..0.4}\nnum_trials: 2\n",
    )
    from_file = trials_of("--config", str(path))
    written_out = trials_of(
        *("--config", str(tmp_path / "base.yaml"), "--train.epochs", "4", "--optim.lr", "0.01"),
        *("--train.compile", "false", "--grid", "loss.consistency_weight=3,5"),
        *("--random", "augment.sigma_max=0.1..0.4", "--num_trials", "2"),
    )
    assert from_file == written_out
    longer = trials_of("--config", str(path), "--train.epochs", "9")
    assert {trial.config.train.epochs for trial in longer} == {9}, "an argument overrides the file"
    (tmp_path / "other.yaml").write_text("train: {epochs: 5}\n")
    other = ("--config", str(tmp_path / "other.yaml"))
    for arguments, epochs in (((*other, "--config", str(path)), 4), (("--config", str(path), *other), 5)):
        assert {trial.config.train.epochs for trial in trials_of(*arguments)} == {epochs}, "the later file counts"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: {train.seed: [0, 1]}\nnum_trails: 3\n", r"got 'num_trails'; .*Did you mean 'num_trials'"),
        ("grid: {train.sed: [0, 1]}\n", r"got 'train\.sed', which is not a field .*Did you mean 'train\.seed'"),
        ("base: absent.yaml\ngrid: {train.seed: [0, 1]}\n", r"base: got 'absent\.yaml'; expected a YAML file"),
        ("grid: [0, 1]\n", r"cannot be read as a sweep; expected fields"),
        ("grid: {train.seed: 3}\n", r"cannot be read as a sweep"),
        ("grid: {method: magn}\n", r"cannot be read as a sweep"),
        ("grid: {train.seed: []}\n", r"grid: train\.seed: got \[\]; expected at least one value\."),
        ("grid: {train.seed: [[0]]}\n", r"cannot be read as a sweep"),
        (
            "grid: {train.seed: [0, 1]}\nout: [there]\n",
            r"out: got \['there'\]; expected a path, in quotes if it looks like a number\.",
        ),
        (
            "grid: {train.seed: [0, 1]}\nout:\n",
            r"out: got None; expected a path, in quotes if it looks like a number\.",
        ),
        (
            "random: {optim.lr: 0.1..1}\nnum_trials: .inf\n",
            r"num_trials: got inf; expected a whole number, 0 or more\.",
        ),
        (
            "random: {optim.lr: 0.1..1}\nnum_trials: 2.5\n",
            r"num_trials: got 2\.5; expected a whole number, 0 or more\.",
        ),
        (
            "grid: {train.seed: [0, 1]}\nsearch_seed: true\n",
            r"search_seed: got True; expected a whole number, 0 or more\.",
        ),
        ("trials: []\n", r"trials: got \[\]; expected at least one"),
        ("trials: [{loss: {jsd_weight: 1}}]\n", r"got 'loss', which is not a field"),
        ("trials: {train.seed: 1}\n", r"cannot be read as a sweep"),
        ("trials: [train.seed]\n", r"cannot be read as a sweep"),
        ("grid: {train.seed: []}\n", r"mine\.yaml: grid: train\.seed: got \[\]; expected at least one value"),
        ("grid: {data.label_column: abc}\n", r"cannot be read as a sweep; .* grid: \{FIELD: \[a, b\]\}"),
        ("grid: {train.seed: '012'}\n", r"cannot be read as a sweep"),
        ("grid: {train.seed: {0: 1}}\n", r"cannot be read as a sweep"),
        ("grid: {train.seed: [0, 1]}\nout:\n", r"mine\.yaml: out: got None; expected a path"),
        ("grid: {train.seed: [0, 1]}\nout: ''\n", r"mine\.yaml: out: got ''; expected a path"),
        ("grid: {train.seed: [0, 1]}\nout: 2024\n", r"mine\.yaml: out: got 2024; expected a path, in quotes if"),
        ("grid: {train.seed: [0, 1]}\nbase: 2024\n", r"cannot be read as a sweep"),
        (
            "random: {optim.lr: 0.1..0.2}\nnum_trials: 2.9\n",
            r"mine\.yaml: num_trials: got 2\.9; expected a whole number",
        ),
        ("random: {optim.lr: 0.1..0.2}\nnum_trials: true\n", r"mine\.yaml: num_trials: got True; expected a whole"),
        ("random: {optim.lr: 0.1..0.2}\nsearch_seed: -1\n", r"mine\.yaml: search_seed: got -1; expected a whole"),
        ("random: {optim.lr: 0.1}\nnum_trials: 2\n", r"cannot be read as a sweep"),
    ],
)
def test_a_sweeps_file_that_cannot_be_used_is_one_line(text, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        trials_of("--config", str(sweep_file(tmp_path, text)))
    assert "\n" not in str(error.value)


SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_name_what_exists(path):
    for trial in trials_of("--config", str(path)):
        check_names(trial.config, list(trial.values))


def test_table_4_has_the_papers_rows():
    trials = trials_of("--config", str(ROOT / "configs" / "sweeps" / "table4.yaml"))
    rows = [
        (trial.config.loss.consistency_weight, trial.config.loss.jsd_weight, trial.config.augment.sigma_max)
        for trial in trials
    ]
    table = PAPER["table_4_sensitivity_cifar10_resnet18"]
    assert rows == [(row["lambda_1"], row["lambda_2"], row["sigma_max"]) for row in table]
    recipe = parse_config(["--config", str(ROOT / "configs" / "cifar10_magn_augmix.yaml")], "test", "A test.")
    assert (trials[0].config.train, trials[0].config.optim) == (recipe.train, recipe.optim)
    files = [ROOT / "configs" / "paper" / "table1" / "magn_augmix.yaml"]
    files += sorted((ROOT / "configs" / "paper" / "table4").glob("*.yaml"))
    alone = [parse_config(["--config", str(file)], "test", "A test.") for file in files]
    assert {trial.config.loss for trial in trials} == {config.loss for config in alone}
    assert {trial.config.augment for trial in trials} == {config.augment for config in alone}


@pytest.mark.parametrize(("data", "folder"), [("cifar10", "table1"), ("cifar100", "table5")])
def test_the_paper_at_small_scale_has_the_papers_recipe(data, folder):
    sweep = str(ROOT / "configs" / "sweeps" / "paper_small.yaml")
    trials = trials_of("--config", sweep, "--data.name", data)
    small = ["--model.name", "resnet_small", "--train.epochs", "60", "--optim.step_epochs", "20"]
    for trial in trials:
        file = str(ROOT / "configs" / "paper" / folder / f"{trial.config.method}.yaml")
        paper = parse_config(["--config", file, *small], "test", "A test.")
        for part in ("data", "model", "train", "optim", "loss", "augment"):
            assert getattr(trial.config, part) == getattr(paper, part)
    assert {trial.config.method for trial in trials} == {"standard", "augmix", "magn", "magn_augmix"}


def keep(out: Path, *arguments: str) -> None:
    request = parse_arguments(list(arguments))
    base, _ = make_trials(request.arguments, request.search, out)
    wanted = definition(base, request.search)
    check_definition(out, wanted)
    keep_definition(out, wanted)


def test_the_definition_is_kept_and_another_one_is_refused(tmp_path):
    first = ["--grid", "loss.jsd_weight=10,12", "--train.epochs", "5"]
    keep(tmp_path, *first)
    there = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert there["grid"] == {"loss.jsd_weight": ["10", "12"]}
    keep(tmp_path, *first)
    keep(tmp_path, *first, "--device", "cpu", "--data.dir", "elsewhere", "--cpus_per_trial", "2")
    for arguments, message in (
        (["--grid", "loss.jsd_weight=10,12"], r"another sweep: train\.epochs is 5 there and 30 here"),
        (["--grid", "loss.jsd_weight=10,11", "--train.epochs", "5"], r'grid\.loss\.jsd_weight is \["10", "12"\] there'),
        ([*first, "--grid", "train.seed=0,1"], r"grid\.train\.seed is not given there"),
    ):
        with pytest.raises(InputError, match=message):
            keep(tmp_path, *arguments)
    (tmp_path / "sweep.yaml").write_text("- not a sweep")
    with pytest.raises(InputError, match=r"sweep\.yaml: cannot be read as a sweep"):
        keep(tmp_path, *first)


def test_what_a_resumed_run_may_change_may_change_in_its_sweep(tmp_path):
    first = ["--grid", "loss.jsd_weight=10,12", "--train.max_steps", "5"]
    keep(tmp_path, *first)
    changed = {"eval.batch_size": 100, "eval.num_images": 50, "data.num_workers": 2, "train.keep_checkpoints": 3}
    keep(tmp_path, *first, *(f"--{name}={value}" for name, value in changed.items()))
    assert changed.items() <= yaml.safe_load((tmp_path / "sweep.yaml").read_text())["fields"].items()
    for backend in ("pil", "numba"):
        keep(tmp_path, *first, "--augment.backend", backend)
    with pytest.raises(InputError, match=r'another sweep: augment\.backend is "numba" there and "dali" here'):
        keep(tmp_path, *first, "--augment.backend", "dali")  # finished trials have other views
    for steps in ("7", "0"):  # 0 means no limit
        keep(tmp_path, *first[:2], "--train.max_steps", steps)
    with pytest.raises(InputError, match=r"another sweep: train\.max_steps is 0 there and 5 here"):
        keep(tmp_path, *first)
    keep(tmp_path, *first[:2], "--train.max_steps", "0")
    with pytest.raises(InputError, match=r"another sweep: optim\.lr is"):
        keep(tmp_path, *first[:2], "--train.max_steps", "0", "--optim.lr", "0.3")


def test_a_sweep_of_texts_that_look_otherwise_is_resumed(tmp_path):
    """Numbers to YAML, and characters that a terminal does not show."""
    arguments = ["--grid", "eval.corrupted_dir=1e3,研究\u3000データ", "--data.test_shards", "می\u200cخواهم"]
    arguments += ["--data.train_shards", "1e-3", "--data.label_column", "a\xa0b"]
    keep(tmp_path, *arguments)
    there = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert there["grid"] == {"eval.corrupted_dir": ["1e3", "研究\u3000データ"]}
    assert (there["fields"]["data.train_shards"], there["fields"]["data.label_column"]) == ("1e-3", "a\xa0b")
    keep(tmp_path, *arguments)
    for trial in trials_of(*arguments):
        (tmp_path / "config.yaml").write_text(to_yaml(trial.config))
        assert parse_config(["--config", str(tmp_path / "config.yaml")], "test", "A test.") == trial.config


def test_where_trials_run():
    arguments = [
        "--grid",
        "train.seed=0,1",
        "--ray.address",
        "auto",
        "--gpus_per_trial",
        "0.5",
        "--max_concurrent",
        "3",
    ]
    assert parse_arguments(arguments).machines == Machines("auto", 1.0, 0.5, 3)

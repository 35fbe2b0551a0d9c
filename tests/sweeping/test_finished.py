"""What a trial's folder holds before the trial starts: its results, also older ones, or a run of something else."""

import dataclasses
import json

import pytest

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.config.text import plain, to_yaml
from fastmagn.errors import InputError
from fastmagn.runs.changes import recipe_fields
from fastmagn.runs.paths import last_checkpoint
from fastmagn.sweep import main
from fastmagn.sweeping import sweep
from fastmagn.sweeping.definition import Trial
from fastmagn.sweeping.sweep import is_finished
from tests.helpers.run_folders import made_results


def test_a_field_that_is_newer_than_the_results_has_its_default(tmp_path):
    config = Config(run_dir=tmp_path)
    results = made_results(config)
    del results["config"]["eval"]["ood"]
    (tmp_path / "results.json").write_text(json.dumps(results | {"config": plain(results["config"])}))
    assert is_finished(Trial("trial", {}, config))
    other = dataclasses.replace(config, eval=dataclasses.replace(config.eval, ood="cifar100"))
    assert not is_finished(Trial("trial", {}, other))


@pytest.mark.parametrize(
    ("recorded", "changed", "expected"),
    [
        ("", "--eval.batch_size 100", True),
        ("--eval.batch_norm adapt", "--eval.batch_norm adapt --eval.batch_size 100", False),
        ("", "--eval.cache_dir there --train.checkpoint_every_steps 5 --train.keep_checkpoints 3", True),
        ("--train.compile false", "--train.compile true --data.num_workers 2", True),  # a resumed run keeps its results
        ("", "--eval.num_images 9", False),
        ("--train.max_steps 5", "--train.max_steps 7", False),
        ("", "--optim.lr 0.3", False),
        ("--augment.backend numba", "--augment.backend pil", True),
        ("--augment.backend numba", "", True),
        ("", "--augment.backend kornia", False),
        ("--augment.backend dali", "", False),
    ],
)
def test_results_hold_if_only_fields_differ_that_leave_them_as_they_are(recorded, changed, expected, tmp_path):
    def config(fields: str) -> Config:
        return parse_config(["--run_dir", str(tmp_path), *fields.split()], "test", "A test.")

    (tmp_path / "results.json").write_text(json.dumps(made_results(config(recorded))))
    assert is_finished(Trial("trial", {}, config(recorded)))
    assert is_finished(Trial("trial", {}, config(changed))) == expected


GRID = ["--grid", "optim.lr=0.05,0.2", "--method", "standard"]


@pytest.mark.parametrize(
    ("recorded", "asked", "others"),
    [
        ("auto", "numba", {}),
        ("pil", "auto", {}),
        ("auto", "kornia", {"augment.backend": ("auto", "kornia")}),
        ("dali", "auto", {"augment.backend": ("dali", "auto")}),
    ],
)
def test_an_engine_with_other_views_is_another_recipe(recorded, asked, others, tmp_path):
    def config(backend: str) -> Config:
        return parse_config(["--run_dir", str(tmp_path), "--augment.backend", backend], "test", "A test.")

    assert recipe_fields(config(asked), plain(config(recorded))) == others


@pytest.mark.parametrize("trained", ["results.json", "checkpoints/last.pt"])
def test_a_folder_with_another_run_is_refused_and_left_alone(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "check_ray", lambda: None)
    folder = tmp_path / "sweep" / "lr-0.05"
    config = parse_config(["--optim.lr", "0.1", "--method", "standard", "--run_dir", str(folder)], "test", "A test.")
    last_checkpoint(folder).parent.mkdir(parents=True)
    (folder / trained).write_text(json.dumps(made_results(config)))
    (folder / "config.yaml").write_text(to_yaml(config))
    with pytest.raises(InputError) as error:
        main([*GRID, "--out", str(tmp_path / "sweep")])
    assert str(error.value) == (
        f"{folder}: has a run of another recipe: optim.lr is 0.1 there and 0.05 here. Give its arguments, or name"
        " another --out."
    )
    assert (folder / "config.yaml").read_text() == to_yaml(config)
    assert not (tmp_path / "sweep" / "sweep.yaml").exists()


def test_a_missing_folder_of_images_is_said_before_the_sweep_is_kept(tmp_path, monkeypatch):
    """So its own advice, another data.name, can be followed."""
    monkeypatch.setattr(sweep, "check_ray", lambda: None)
    with pytest.raises(InputError, match=r"data\.dir: .*no such file or folder.*--data\.name digits"):
        main([*GRID, "--data.name", "cifar10", "--data.dir", str(tmp_path / "no"), "--out", str(tmp_path / "sweep")])
    assert not (tmp_path / "sweep" / "sweep.yaml").exists()

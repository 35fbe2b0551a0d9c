"""Trials that would repeat others: which they are, and what a sweep says of them."""

from pathlib import Path

import pytest

from fastmagn.extend import add_method
from fastmagn.methods.standard import STANDARD
from fastmagn.sweep import main
from fastmagn.sweeping import sweep
from fastmagn.sweeping.arguments import parse_arguments
from fastmagn.sweeping.definition import make_trials
from fastmagn.sweeping.repeats import without_repeats
from tests.helpers.own_code import forgotten

METHOD_AND_NOISE = ("--grid", "method=standard,magn", "--grid", "augment.sigma_max=0.1,0.2,0.3")


def kept(*arguments: str) -> list[str]:
    request = parse_arguments(list(arguments))
    return [trial.name for trial in without_repeats(make_trials(request.arguments, request.search, request.out)[1])]


def test_a_method_is_trained_once_for_all_values_of_a_field_that_it_does_not_read(capfd):
    noisy = [f"method-magn_sigma_max-{sigma}" for sigma in (0.1, 0.2, 0.3)]
    assert kept(*METHOD_AND_NOISE) == ["method-standard_sigma_max-0.1", *noisy]
    shown = capfd.readouterr().out
    repeats = "2 trials that would repeat method-standard_sigma_max-0.1"
    assert shown == f"left out: {repeats}: augment.sigma_max makes no difference there\n"


def test_a_field_that_needs_another_one_counts_where_that_is_given(capfd):
    names = kept("--grid", "optim.schedule=one_cycle,step", "--grid", "optim.step_epochs=2,4", "--method", "standard")
    assert names == ["schedule-one_cycle_step_epochs-2", "schedule-step_step_epochs-2", "schedule-step_step_epochs-4"]
    shown = capfd.readouterr().out
    assert "1 trial that would repeat schedule-one_cycle_step_epochs-2: optim.step_epochs makes no difference" in shown


@pytest.mark.parametrize(
    "grid",
    [
        "train.seed=0,1",
        "device=cpu,auto",
        "augment.sigma_max=0.1,0.2",
        "method=magn,magn_augmix",
    ],
)
def test_fields_that_have_an_effect_make_trials_of_their_own(grid, capfd):
    assert len(kept("--grid", grid, "--method", "magn")) == 2
    assert capfd.readouterr().out == ""


def test_two_folders_of_images_are_two_trials_unless_the_set_reads_none(capfd):
    assert len(kept("--grid", "data.dir=a,b", "--method", "magn", "--data.name", "folder")) == 2
    assert capfd.readouterr().out == ""
    assert len(kept("--grid", "data.dir=a,b", "--method", "magn", "--data.name", "digits")) == 1
    assert "data.dir makes no difference" in capfd.readouterr().out


def test_a_method_of_the_users_own_may_read_every_field():
    with forgotten():
        add_method("mine", STANDARD)
        assert len(kept("--method", "mine", "--grid", "augment.sigma_max=0.1,0.2")) == 2


def test_a_value_that_the_method_would_set_itself_is_the_same_as_none(tmp_path, capfd):
    changes = ("", ", augment.patch_gaussian: 0.2", ", augment.patch_gaussian: 0.1")
    trials = "".join(f"- {{method: gaussian_noise{change}}}\n" for change in changes)
    (tmp_path / "sweep.yaml").write_text("trials:\n" + trials)
    assert len(kept("--config", str(tmp_path / "sweep.yaml"))) == 2
    assert (
        "would repeat method-gaussian_noise_patch_gaussian-0.0: augment.patch_gaussian makes" in capfd.readouterr().out
    )


def test_a_sweep_trains_what_is_left(tmp_path: Path, monkeypatch, capfd):
    trained = []
    monkeypatch.setattr(sweep, "check_ray", lambda: None)
    monkeypatch.setattr(sweep, "run_unfinished", lambda board, machines: trained.extend(board.trials) or 0)
    main([*METHOD_AND_NOISE, "--out", str(tmp_path / "sweep")])
    assert len(trained) == 4
    assert "sweep: 4 trials" in capfd.readouterr().out

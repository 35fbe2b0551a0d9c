"""A run with a policy: resumed to the bit, refused once its policy has changed, and told apart from older draws."""

import re
from pathlib import Path

import pytest
import torch

from fastmagn.augment.policies.recipe import policy_of
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from fastmagn.evaluation.run import evaluate_run
from fastmagn.machine.files import replace_file
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.checksum import add_checksum
from fastmagn.runs.paths import POLICY, last_checkpoint
from fastmagn.runs.reading import read_config
from fastmagn.training.run import train
from tests.helpers import smooth_network
from tests.helpers.processes import ROOT, TWO_PROCESSES, run
from tests.helpers.small_runs import SMOOTH, config_for, knows_the_network, small

CPU = torch.device("cpu")
OURS = "steps: [[{operation: rotate, range: [0, 30], signed: true}, {operation: invert}]]\n"
WITH_PATCHES = ["--augment.erase_probability", "0.5", "--augment.patch_linf", "0.1"]


@pytest.fixture(autouse=True)
def network(monkeypatch):
    knows_the_network(monkeypatch)


@pytest.mark.slow
@pytest.mark.process
def test_two_processes_draw_and_average_what_one_does(tmp_path):
    """A policy of one's own, erasing, patches, and an equal average with its statistics, at the same global batch."""
    file = tmp_path / "own.yaml"
    file.write_text(OURS)
    arguments = [*SMOOTH, "--method", "ta_noise", "--augment.policy", str(file), "--optim.lr", "0.05"]
    arguments += ["--train.swa_fraction", "0.5", "--eval.weights", "ema", "--model.sync_bn", "true"]
    train(config_for(arguments, tmp_path / "alone"))
    run([*TWO_PROCESSES, "-m", smooth_network.__name__, *arguments, "--run_dir", str(tmp_path / "two")], ROOT)
    alone, two = (read_checkpoint(last_checkpoint(tmp_path / name), CPU) for name in ("alone", "two"))
    assert alone["recipe"] == two["recipe"]
    for part in ("model", "average"):
        for name, value in alone[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=0, atol=1e-5, msg=f"{part}: {name}")
    assert (tmp_path / "two" / POLICY).read_text() == OURS


def forget_recipe(path: Path, version: int | None) -> None:
    """Rewrite a checkpoint as one of other draws: of `version`, or of a fastmagn that did not write one."""
    state = read_checkpoint(path, CPU)
    if version is None:
        del state["recipe"]
    else:
        state["recipe"]["version"] = version
    with replace_file(path) as file:
        torch.save(state, file)
        add_checksum(file, state["step"])


@pytest.mark.parametrize(("method", "policy"), [("augmix", "own"), ("magn", "trivialaugment"), ("ta_noise", "none")])
def test_a_run_resumes_to_the_bit_under_any_policy(tmp_path, method, policy):
    file = tmp_path / "own.yaml"
    file.write_text(OURS)
    name = str(file) if policy == "own" else policy
    arguments = ["--method", method, "--augment.policy", name, *WITH_PATCHES]
    train(small(tmp_path / "whole", *arguments))
    train(small(tmp_path / "cut", *arguments, "--train.max_steps", "5"))
    train(small(tmp_path / "cut", *arguments))
    whole, cut = (read_checkpoint(last_checkpoint(tmp_path / run), CPU)["model"] for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert (tmp_path / "whole" / POLICY).exists() == (policy == "own")


def test_a_changed_file_is_refused_and_its_copy_resumes(tmp_path):
    file, run_dir = tmp_path / "own.yaml", tmp_path / "run"
    file.write_text(OURS)
    arguments = ["--augment.policy", str(file)]
    train(small(run_dir, *arguments, "--train.max_steps", "5"))
    assert (run_dir / POLICY).read_text() == OURS
    before = last_checkpoint(run_dir).read_bytes()
    file.write_text(OURS.replace("30", "20"))
    with pytest.raises(InputError) as error:
        train(small(run_dir, *arguments))
    assert str(error.value) == (
        f"augment.policy: the file has other content than {last_checkpoint(run_dir)} was made with; {run_dir / POLICY}"
        " is a copy of what it was. Restore it, or name another --run_dir to train from scratch."
    )
    assert (run_dir / POLICY).read_text() == OURS
    assert last_checkpoint(run_dir).read_bytes() == before
    with pytest.raises(InputError, match=r"augment\.policy: got 'none'; expected '.*own\.yaml', with which"):
        train(small(run_dir))
    file.unlink()
    evaluate_run(run_dir, read_config(run_dir))  # needs no policy
    assert train(small(run_dir, "--augment.policy", str(run_dir / POLICY)))["steps"] == 8
    assert (run_dir / POLICY).read_text() == OURS


def test_comments_and_layout_of_a_file_may_change(tmp_path):
    file, run_dir = tmp_path / "own.yaml", tmp_path / "run"
    file.write_text(OURS)
    train(small(run_dir, "--augment.policy", str(file), "--train.max_steps", "5"))
    file.write_text("# mine\n" + re.sub(", ", ",   ", OURS))
    assert train(small(run_dir, "--augment.policy", str(file)))["steps"] == 8


def test_a_second_run_of_a_process_draws_from_the_file_as_it_is_now(tmp_path):
    file = tmp_path / "own.yaml"
    weights = []
    for text in (OURS, OURS.replace("invert", "equalize"), OURS):
        file.write_text(text)
        train(small(tmp_path / f"run{len(weights)}", "--augment.policy", str(file)))
        state = read_checkpoint(last_checkpoint(tmp_path / f"run{len(weights)}"), CPU)["model"]
        weights.append(torch.cat([value.flatten().double() for value in state.values()]))
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert policy_of(AugmentConfig(policy=str(file))) != policy_of(AugmentConfig(policy="trivialaugment"))


@pytest.mark.parametrize("method", ["trivialaugment", "autoaugment"])
@pytest.mark.parametrize("version", [None, 99])
def test_a_checkpoint_of_other_draws_resumes_with_a_warning(tmp_path, capsys, method, version):
    arguments = ["--method", method]
    train(small(tmp_path, *arguments, "--train.max_steps", "5"))
    forget_recipe(last_checkpoint(tmp_path), version)
    capsys.readouterr()
    assert train(small(tmp_path, *arguments))["steps"] == 8
    said = " ".join(capsys.readouterr().out.split())
    assert "was made by another version of fastmagn, which drew policies otherwise. The run resumes" in said
    assert read_checkpoint(last_checkpoint(tmp_path), CPU)["recipe"] == {"version": 1}


def test_a_checkpoint_from_before_policies_resumes_silently_without_one(tmp_path, capsys):
    train(small(tmp_path, "--train.max_steps", "5"))
    assert read_checkpoint(last_checkpoint(tmp_path), CPU)["recipe"] is None
    forget_recipe(last_checkpoint(tmp_path), None)
    assert train(small(tmp_path))["steps"] == 8
    assert "another version" not in capsys.readouterr().out

"""`train.amp auto` on two machines: a run keeps the precision that it began in, and one that is slow is a warning."""

from functools import partial

import pytest
import torch

from fastmagn.config.schema import Config, TrainConfig
from fastmagn.errors import InputError
from fastmagn.machine.processes import World
from fastmagn.runs.paths import last_checkpoint
from fastmagn.runs.reading import read_config
from fastmagn.training import amp
from fastmagn.training.amp import in_begun_precision
from fastmagn.training.run import train
from tests.helpers.processes import TWO_PROCESSES, run
from tests.helpers.small_runs import (
    SMOOTH,
    assert_same_weights,
    config_for,
    knows_the_network,
    results,
    state,
    weights,
)

STEPS = [
    *(*SMOOTH, "--method", "standard", "--train.batch_size", "16", "--train.epochs", "1", "--train.max_steps", "2"),
    *("--data.num_validation_images", "0", "--eval.num_images", "2"),
]
small = partial(config_for, [*STEPS, "--train.amp", "auto"])
FASTER = "warning: train.amp: bf16 is slow here; --train.amp float32 is faster."
BEGUN = "warning: train.amp: bf16, in which the run began, is slow here; float32 needs another --run_dir."
SLOW = "is slow here"


@pytest.fixture(autouse=True)
def network(monkeypatch):
    knows_the_network(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def on_a_cpu(monkeypatch, has_bf16: bool) -> None:
    """The CPU has bfloat16, or emulates it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16}, raising=False)


def precisions(run_dir) -> set[str]:
    """What the run's files record."""
    return {
        results(run_dir)["config"]["train"]["amp"],
        read_config(run_dir).train.amp,
        state(run_dir)["config"]["train.amp"],
    }


@pytest.mark.parametrize(("begun_with_bf16", "begun_in"), [(True, "bf16"), (False, "float32")])
def test_the_same_command_goes_on_where_auto_means_another_precision(
    begun_with_bf16, begun_in, tmp_path, monkeypatch, capsys
):
    on_a_cpu(monkeypatch, begun_with_bf16)
    train(small(tmp_path / "whole"))
    train(small(tmp_path / "run", "--train.max_steps", "1"))
    assert SLOW not in capsys.readouterr().out
    on_a_cpu(monkeypatch, not begun_with_bf16)
    train(small(tmp_path / "run", "--device", "auto"))
    printed = capsys.readouterr().out
    assert f"{begun_in} on cpu" in printed
    assert printed.count(BEGUN) == printed.count(SLOW) == (begun_in == "bf16")
    assert precisions(tmp_path / "run") == {begun_in}
    assert_same_weights(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    train(small(tmp_path / "run"))
    printed = capsys.readouterr().out
    assert "is finished" in printed
    assert SLOW not in printed


def test_a_precision_that_is_asked_for_is_compared_with_the_checkpoint(tmp_path, monkeypatch):
    on_a_cpu(monkeypatch, False)
    train(small(tmp_path / "run", "--train.max_steps", "1"))
    with pytest.raises(InputError, match=r"^train\.amp: got 'bf16'; expected 'float32', with which "):
        train(small(tmp_path / "run", "--train.amp", "bf16"))


def test_a_damaged_checkpoint_gives_way_to_the_one_before_in_its_precision(tmp_path, monkeypatch, capsys):
    on_a_cpu(monkeypatch, True)
    train(small(tmp_path / "run", "--train.checkpoint_every_steps", "1"))
    last_checkpoint(tmp_path / "run").write_bytes(b"damaged")
    on_a_cpu(monkeypatch, False)
    train(small(tmp_path / "run"))
    assert "resumed at epoch 1, after 1 step" in capsys.readouterr().out
    assert precisions(tmp_path / "run") == {"bf16"}


def test_a_scaled_run_in_fp16_goes_on_in_it(tmp_path, monkeypatch, capsys):
    on_a_cpu(monkeypatch, True)
    train(small(tmp_path / "run", "--train.amp", "fp16", "--train.max_steps", "1"))
    assert "warning: train.amp: fp16 is slow here; --train.amp float32 is faster." in capsys.readouterr().out
    assert state(tmp_path / "run")["scaler"]["_growth_tracker"] == 1
    train(small(tmp_path / "run"))
    assert precisions(tmp_path / "run") == {"fp16"}
    assert state(tmp_path / "run")["scaler"]["_growth_tracker"] == 2


def test_a_slow_precision_is_one_line_when_a_run_begins_and_when_it_is_measured_again(tmp_path, monkeypatch, capsys):
    on_a_cpu(monkeypatch, False)
    folder = tmp_path / "a run"
    train(small(folder, "--train.amp", "bf16"))
    printed = capsys.readouterr().out
    assert printed.count(FASTER) == printed.count(SLOW) == 1
    train(small(folder, "--train.amp", "bf16", "--eval.num_images", "3"))
    printed = capsys.readouterr().out
    assert printed.count(SLOW) == 1
    assert (
        "warning: train.amp: bf16, in which the run was trained, is slow here;"
        f" `python -m fastmagn.evaluate --run '{folder}'` measures in float32." in printed
    )


@pytest.mark.parametrize(
    ("saved", "others", "expected"),
    [
        ("fp16", ["bf16", "float32"], "fp16"),
        (None, ["bf16", "bf16"], "bf16"),
        (None, ["bf16", "float32"], "float32"),
        (None, ["float32", "bf16"], "float32"),
        (["fp16"], ["float32", "float32"], "float32"),
    ],
)
def test_all_processes_have_one_precision(saved, others, expected, tmp_path, monkeypatch):
    """Of two hosts, whose file system only the first one's process reads."""

    class Hosts(World):
        def gather(self, value):
            return [value, None] if self.rank == 0 and value in (saved, None) else others

    monkeypatch.setattr(amp, "newest_readable", lambda run_dir: saved and {"config": {"train.amp": saved}})
    config = Config(run_dir=tmp_path, train=TrainConfig(amp=others[0]))
    assert in_begun_precision(config, "auto", Hosts(0, 2)).train.amp == expected
    assert in_begun_precision(config, others[0], Hosts(0, 2)) is config


@pytest.mark.slow
@pytest.mark.process
def test_two_processes_keep_a_precision_that_auto_may_not_mean_here(tmp_path):
    """fp16, which `auto` means nowhere."""
    command = [*TWO_PROCESSES, "-m", "fastmagn.train", *STEPS, "--model.name", "resnet_small", "--run_dir", "run"]
    first = run([*command, "--train.amp", "fp16", "--train.max_steps", "1"], tmp_path)
    assert first.stdout.count("warning: train.amp: fp16 is slow here") == 1
    second = run([*command, "--train.amp", "auto"], tmp_path)
    assert second.stdout.count("warning: train.amp: fp16, in which the run began, is slow here") == 1
    assert precisions(tmp_path / "run") == {"fp16"}
    assert state(tmp_path / "run")["step"] == 2

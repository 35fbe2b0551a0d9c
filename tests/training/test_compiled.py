"""When a run on a CPU compiles its network, that a resumed run keeps it, and that one that cannot trains eagerly."""

from functools import partial

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from fastmagn.runs.paths import last_checkpoint
from fastmagn.training import compiled
from fastmagn.training.compiled import before_of, is_compiled, is_repaid
from fastmagn.training.run import train
from tests.helpers.processes import TWO_PROCESSES, run
from tests.helpers.small_runs import (
    DEFAULT,
    assert_same_weights,
    config_for,
    results,
    rows,
    state,
    weights,
    without_times,
)

FOUR_STEPS = [*DEFAULT, "--train.batch_size", "32", "--train.epochs", "1", "--train.max_steps", "4"]
small = partial(config_for, FOUR_STEPS)
NO_BACKWARD = "the backward pass has no compiler"


def _refuse(graph, inputs):
    raise RuntimeError(NO_BACKWARD)


BACKWARD_FAILS = aot_autograd(fw_compiler=lambda graph, inputs: make_boxed_func(graph.forward), bw_compiler=_refuse)


def compiles_with(monkeypatch, backend, repaid: bool = True) -> None:
    """torch.compile has this backend, and any number of steps repays it, or none does."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    monkeypatch.setattr(compiled, "is_repaid", lambda steps, pixels: repaid)


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    """The folder of an eager run."""
    folder = tmp_path_factory.mktemp("eager") / "run"
    train(small(folder))
    return folder


@pytest.mark.parametrize(
    ("asked", "repaid", "before", "expected"),
    [
        ("auto", True, None, True),
        ("auto", False, None, False),
        ("auto", True, False, False),
        ("auto", False, True, True),
        (True, False, False, True),
        (True, False, None, True),
        (False, True, True, False),
        (False, True, None, False),
    ],
)
def test_what_was_asked_decides_then_the_checkpoint_then_the_steps(asked, repaid, before, expected, monkeypatch):
    monkeypatch.setattr(compiled, "is_repaid", lambda steps, pixels: repaid)
    assert is_compiled(asked, 10, 1024, before) is expected


def test_the_cpu_recipe_repays_compiling_and_the_quickstart_does_not():
    """15 epochs of 195 steps of 256 images, and 30 of 18 steps of 64; four views of 32 x 32 px each."""
    assert is_repaid(15 * 195, 256 * 4 * 32 * 32)
    assert not is_repaid(500, 256 * 4 * 32 * 32)
    assert not is_repaid(30 * 18, 64 * 4 * 32 * 32)
    assert not is_repaid(0, 2**40)


def test_large_images_repay_it_sooner():
    steps = next(steps for steps in range(10**6) if is_repaid(steps, 64 * 3 * 32 * 32))
    assert is_repaid(steps // 49 + 1, 64 * 3 * 224 * 224)
    assert not is_repaid(steps // 49 - 1, 64 * 3 * 224 * 224)


def test_a_repaid_run_says_so_and_records_it_and_a_resumed_one_keeps_it(tmp_path, monkeypatch, capsys):
    compiles_with(monkeypatch, "aot_eager")
    train(small(tmp_path / "whole"))
    assert capsys.readouterr().out.count("compiling takes less time than it saves in the remaining 4 steps") == 1
    train(small(tmp_path / "run", "--train.max_steps", "2"))
    assert state(tmp_path / "run")["config"]["train.compile"] is True
    capsys.readouterr()
    compiles_with(monkeypatch, "aot_eager", repaid=False)
    train(small(tmp_path / "run"))
    assert capsys.readouterr().out.count("compiling the network: the run was compiled before") == 1
    assert results(tmp_path / "run")["config"]["train"]["compile"] is True
    assert_same_weights(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert without_times(rows(tmp_path / "run")) == without_times(rows(tmp_path / "whole"))


def test_a_run_that_began_eagerly_stays_eager(eager, tmp_path, monkeypatch, capsys):
    train(small(tmp_path / "run", "--train.max_steps", "2"))
    compiles_with(monkeypatch, _refuse)
    train(small(tmp_path / "run"))
    assert "compiling the network" not in capsys.readouterr().out
    assert_same_weights(weights(tmp_path / "run"), weights(eager))


@pytest.mark.parametrize("asked", ["auto", "true"])
def test_what_cannot_be_compiled_trains_eagerly_to_the_same_bits(asked, eager, tmp_path, monkeypatch, capsys):
    """The forward pass has succeeded by then: its batch statistics must not remain."""
    compiles_with(monkeypatch, BACKWARD_FAILS)
    train(small(tmp_path / "run", "--train.compile", asked))
    printed = capsys.readouterr().out
    assert printed.count("warning: train.compile: the network cannot be compiled (") == 1
    assert NO_BACKWARD in printed
    assert "It trains eagerly." in printed
    assert state(tmp_path / "run")["config"]["train.compile"] is False
    assert_same_weights(weights(tmp_path / "run"), weights(eager))
    assert without_times(rows(tmp_path / "run")) == without_times(rows(eager))


def test_a_compiled_run_that_resumes_without_a_compiler_says_that_its_bits_differ(tmp_path, monkeypatch, capsys):
    compiles_with(monkeypatch, "aot_eager")
    train(small(tmp_path / "run", "--train.max_steps", "2"))
    compiles_with(monkeypatch, BACKWARD_FAILS)
    train(small(tmp_path / "run"))
    assert "the checkpoint was trained by a compiled one, which rounds otherwise." in capsys.readouterr().out
    assert results(tmp_path / "run")["config"]["train"]["compile"] is False


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"train.compile": True, "device": "cpu"}, True),
        ({"train.compile": False, "device": "cpu"}, False),
        ({"train.compile": True, "device": "cuda"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_only_a_checkpoint_of_a_cpu_decides_on_a_cpu(saved, expected):
    assert before_of(saved) is expected


def test_clean_epochs_are_compiled_too(tmp_path, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(len(inputs))
        return graph.forward

    compiles_with(monkeypatch, backend)
    more = ("--train.clean_epochs", "1", "--train.epochs", "2", "--train.max_steps", "2")
    train(small(tmp_path / "run", *more))
    assert len(graphs) == 2


@pytest.mark.slow
@pytest.mark.process
def test_a_machine_without_a_compiler_trains(tmp_path):
    """The real Inductor, an empty cache, and no C++ compiler."""
    environment = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = ["fastmagn.train", *DEFAULT, "--train.max_steps", "1", "--train.compile", "true"]
    done = run([*command, "--run_dir", "run"], tmp_path, **environment)
    assert done.stdout.count("warning: train.compile: the network cannot be compiled (") == 1
    assert "compiler" in done.stdout
    assert last_checkpoint(tmp_path / "run").exists()
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.process
def test_two_processes_compile_and_resume_compiled(tmp_path):
    command = [*TWO_PROCESSES, "-m", "fastmagn.train", *FOUR_STEPS, "--train.batch_size", "16", "--run_dir", "run"]
    first = run([*command, "--train.compile", "true", "--train.max_steps", "2"], tmp_path)
    assert first.stdout.count("compiling the network: train.compile is true") == 1
    assert "cannot be compiled" not in first.stdout
    second = run(command, tmp_path)
    assert second.stdout.count("compiling the network: the run was compiled before") == 1
    assert state(tmp_path / "run")["config"]["train.compile"] is True
    assert state(tmp_path / "run")["step"] == 4

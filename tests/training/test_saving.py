"""Checkpoints are written while training continues: which state, how many copies, whose errors, what is counted."""

import errno
import os
import signal
import threading
import time
from collections import OrderedDict
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from fastmagn.errors import InputError, Interrupted
from fastmagn.machine.behind import Behind
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training import loop, saving
from fastmagn.training import run as run_module
from fastmagn.training.run import train
from fastmagn.training.snapshot import on_host
from tests.helpers import processes
from tests.helpers.small_runs import assert_ends_alike, knows_the_network, measures_little, results, rows, small, state

LIMIT_S = 60.0
EVERY_STEP = ("--train.checkpoint_every_steps", "1")


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    knows_the_network(monkeypatch)


@pytest.mark.parametrize(("keep", "older"), [(1, []), (3, ["step-00000001.pt", "step-00000002.pt"])])
def test_a_run_keeps_as_many_checkpoints_as_it_is_told(keep, older, tmp_path):
    arguments = [*EVERY_STEP, "--train.keep_checkpoints", str(keep), "--train.max_steps", "3"]
    train(small(tmp_path / "run", *arguments))
    kept = sorted(path.name for path in last_checkpoint(tmp_path / "run").parent.iterdir())
    assert kept == ["last.pt", *older]


def test_the_next_epoch_trains_while_the_checkpoint_is_written(undisturbed, tmp_path, monkeypatch):
    """The first write waits for the second step of the next epoch. It is still the state of the epoch's end."""
    step_taken, written, honest_step, honest_put = threading.Event(), {}, loop.train_step, saving.put_checkpoint

    def train_step(run, pieces, step):
        parts = honest_step(run, pieces, step)
        if step == 5:
            step_taken.set()
        return parts

    def put_checkpoint(run_dir, step, *arguments):
        assert step == 8 or step_taken.wait(LIMIT_S), "training does not continue"
        honest_put(run_dir, step, *arguments)
        written[step] = state(run_dir)

    monkeypatch.setattr(loop, "train_step", train_step)
    monkeypatch.setattr(saving, "put_checkpoint", put_checkpoint)
    train(small(tmp_path / "run"))
    assert_ends_alike(tmp_path / "run", undisturbed)
    monkeypatch.undo()
    knows_the_network(monkeypatch)
    train(small(tmp_path / "short", "--train.max_steps", "4"))
    expected = state(tmp_path / "short")
    assert written[4]["step"] == 4
    assert len(written[4]["progress"]["rows"]) == 1
    for name, value in expected["model"].items():
        assert torch.equal(written[4]["model"][name], value), name
    for index, entry in expected["optimizer"]["state"].items():
        assert torch.equal(written[4]["optimizer"]["state"][index]["momentum_buffer"], entry["momentum_buffer"])


def test_there_is_one_copy_at_a_time(tmp_path, monkeypatch):
    """The next state is copied only after the one before is on disk: memory does not grow with slow disks."""
    events, honest_copy, honest_put = [], saving.on_host, saving.put_checkpoint

    def copy(value):
        events.append("copied")
        return honest_copy(value)

    def put(*arguments):
        time.sleep(0.02)  # longer than a step
        honest_put(*arguments)
        events.append("written")

    monkeypatch.setattr(saving, "on_host", copy)
    monkeypatch.setattr(saving, "put_checkpoint", put)
    train(small(tmp_path / "run", *EVERY_STEP))
    assert events == ["copied", "written"] * 8


def test_an_error_of_the_writing_thread_ends_the_run(tmp_path, monkeypatch):
    def put(*arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(saving, "put_checkpoint", put)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        train(small(tmp_path / "run"))


@pytest.mark.parametrize("error", [ValueError("a bug"), Interrupted(2)])
def test_what_ends_the_training_waits_for_the_checkpoint(error, tmp_path, monkeypatch):
    honest_step, honest_put = loop.train_step, saving.put_checkpoint

    def train_step(run, pieces, step):
        if step == 5:
            raise error
        return honest_step(run, pieces, step)

    def put(*arguments):
        time.sleep(0.3)
        honest_put(*arguments)

    monkeypatch.setattr(loop, "train_step", train_step)
    monkeypatch.setattr(saving, "put_checkpoint", put)
    with pytest.raises(type(error)):
        train(small(tmp_path / "run"))
    assert state(tmp_path / "run")["step"] == 4


def test_a_second_ctrl_c_does_not_wait_for_a_disk_that_hangs(tmp_path, monkeypatch):
    may_end, ended, honest_step = threading.Event(), threading.Event(), loop.train_step

    def train_step(run, pieces, step):
        if step == 5:
            raise Interrupted(2)
        return honest_step(run, pieces, step)

    def put(*arguments):
        may_end.wait(LIMIT_S)
        ended.set()

    monkeypatch.setattr(loop, "train_step", train_step)
    monkeypatch.setattr(saving, "put_checkpoint", put)
    monkeypatch.setattr(saving, "EXIT_PATIENCE_S", 0.01)
    with pytest.raises(Interrupted):
        train(small(tmp_path / "run"))
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(LIMIT_S)
    assert not last_checkpoint(tmp_path / "run").exists()


def test_a_signal_during_the_last_write_stops_the_run_before_it_measures(tmp_path, monkeypatch):
    honest_put, measured = saving.put_checkpoint, []

    def put(run_dir, step, *arguments):
        honest_put(run_dir, step, *arguments)
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)  # training has nothing left but to wait for this

    monkeypatch.setattr(saving, "put_checkpoint", put)
    monkeypatch.setattr(run_module, "evaluate_model", lambda *arguments, **options: measured.append(arguments))
    with pytest.raises(Interrupted, match="SIGTERM"):
        train(small(tmp_path / "run"))
    assert state(tmp_path / "run")["step"] == 8
    assert not measured


def test_ctrl_c_in_a_wait_for_the_disk_leaves_the_write_too(tmp_path, monkeypatch):
    """An error waits for a disk that hangs; a person does not."""
    may_end, left, honest_step = threading.Event(), [], loop.train_step

    def train_step(run, pieces, step):
        if step == 5:
            raise ValueError("a bug")
        return honest_step(run, pieces, step)

    def wait(behind, timeout_s=None):
        if timeout_s is None:
            raise Interrupted(2)

    monkeypatch.setattr(loop, "train_step", train_step)
    monkeypatch.setattr(saving, "put_checkpoint", lambda *arguments: may_end.wait(LIMIT_S))
    monkeypatch.setattr(Behind, "wait", wait)
    monkeypatch.setattr(Behind, "leave", lambda behind, patience_s, status: left.append((patience_s, status)))
    with pytest.raises(Interrupted):
        train(small(tmp_path / "run"))
    may_end.set()
    assert left == [(2.0, 130)]


@pytest.mark.process
def test_a_command_that_leaves_a_slow_write_ends_with_its_own_exit_code(tmp_path):
    """PyTorch's writer asks Python for each piece, in the middle of C++: Python must not end its thread there."""
    program = tmp_path / "slow.py"
    program.write_text(
        "import threading, time, torch\n"
        "from fastmagn.errors import Interrupted\n"
        "from fastmagn.machine.behind import Behind\n"
        "from fastmagn.machine.command import run_command\n"
        "class Disk:\n"
        "    is_asked = threading.Event()\n"
        "    def write(self, data):\n"
        "        self.is_asked.set()\n"
        "        time.sleep(0.001)\n"
        "        return len(data)\n"
        "def main(arguments):\n"
        "    behind, state = Behind(), {str(i): torch.zeros(9) for i in range(9999)}\n"
        "    behind.start(lambda: torch.save(state, Disk()))\n"
        "    Disk.is_asked.wait()\n"
        "    behind.leave(0.1, 143)\n"
        "    print('left')\n"
        "    raise Interrupted(15)\n"
        "run_command(main)\n"
    )
    done = processes.run([program], tmp_path, expect=143)
    assert (done.stdout, done.stderr) == ("left\n", "interrupted by SIGTERM\n")


class Clock:
    """Stands for the clock: it runs only where it is told to."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """A step takes 1 s, the copy of a state 10 s, the validation after an epoch 100 s; all else takes no time."""
    clock = Clock()
    taking(monkeypatch, clock, loop, "train_step", 1)
    taking(monkeypatch, clock, saving, "on_host", 10)
    taking(monkeypatch, clock, loop, "validation_accuracy", 100)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def taking(monkeypatch, clock: Clock, owner: object, name: str, seconds: float) -> None:
    """The function takes so long from now on."""
    honest = getattr(owner, name)

    def slow(*arguments, **options):
        clock.now += seconds
        return honest(*arguments, **options)

    monkeypatch.setattr(owner, name, slow)


def test_training_and_what_a_person_waits_for_are_counted_apart(clock, tmp_path):
    """A copy after each step; an epoch's last one belongs to the wait for the next row."""
    run_dir = tmp_path / "run"
    train(small(run_dir, *EVERY_STEP))
    assert [(row["epoch_s"], row["wall_s"]) for row in rows(run_dir)] == [(4, 4 + 30 + 100), (4, 4 + 40 + 100)]
    assert [row["images_per_s"] for row in rows(run_dir)] == [256, 256]
    assert [row["wall_images_per_s"] for row in rows(run_dir)] == [1024 / 134, 1024 / 144]
    found = results(run_dir)
    assert (found["train_s"], found["images_per_s"]) == (8, 256)
    assert (found["wall_s"], found["wall_images_per_s"]) == (288, 2048 / 288)


def test_the_time_between_two_processes_is_not_counted(clock, tmp_path):
    train(small(tmp_path / "run", "--train.max_steps", "6"))
    clock.now += 5000
    train(small(tmp_path / "run"))
    found = results(tmp_path / "run")
    assert (found["train_s"], found["wall_s"]) == (8, 8 + 20 + 300)  # the cut epoch is validated twice


def test_the_time_that_loading_takes_is_part_of_what_a_training_waits_for(clock, tmp_path, monkeypatch):
    """Not of one that is over: to measure it once more makes no training longer."""
    honest = run_module.load_on_all

    def load_on_all(*arguments):
        clock.now += 1000
        return honest(*arguments)

    monkeypatch.setattr(run_module, "load_on_all", load_on_all)
    run_dir = tmp_path / "run"
    train(small(run_dir, "--train.max_steps", "4"))
    assert [row["wall_s"] for row in rows(run_dir)] == [1000 + 4 + 100]
    train(small(run_dir, "--train.max_steps", "4", "--eval.num_images", "5"))
    assert (results(run_dir)["train_s"], results(run_dir)["wall_s"]) == (4, 1000 + 4 + 100)


@pytest.mark.parametrize("is_measured", [True, False])
def test_an_evaluation_is_no_part_of_what_a_training_waits_for(is_measured, clock, tmp_path, monkeypatch):
    """Also if the disk has room for the last checkpoint only after it, and if it fails and is done again."""
    measures_little(monkeypatch)
    run_dir, honest, refused = tmp_path / "run", saving.put_checkpoint, []

    def put_checkpoint(*arguments):
        refused.append(None)
        if len(refused) <= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        honest(*arguments)

    def fail(*arguments, **options):
        raise InputError("eval.x: no")

    monkeypatch.setattr(saving, "put_checkpoint", put_checkpoint)
    with monkeypatch.context() as patched:
        if not is_measured:
            patched.setattr(run_module, "evaluate_model", fail)
        taking(patched, clock, run_module, "evaluate_model", 1000)
        with nullcontext() if is_measured else pytest.raises(InputError, match=r"^eval\.x: no$"):
            train(small(run_dir, "--train.max_steps", "4"))
    if not is_measured:
        train(small(run_dir, "--train.max_steps", "4"))
    assert len(refused) == 3
    assert (results(run_dir)["train_s"], results(run_dir)["wall_s"]) == (4, 4 + 100 + 10)


@pytest.mark.parametrize("average", [(), ("--train.swa_fraction", "0.5")])
def test_to_measure_a_training_again_makes_it_no_longer(average, clock, tmp_path, monkeypatch):
    """Kernels of the evaluation may have to be compiled. An average is measured on one more epoch of views again."""
    measures_little(monkeypatch)
    run_dir = tmp_path / "run"
    train(small(run_dir, *average))
    waited_for = state(run_dir)["progress"]["train_wall_s"] + state(run_dir)["progress"]["epoch_wall_s"]
    taking(monkeypatch, clock, run_module, "compile_ahead", 1000)
    taking(monkeypatch, clock, loop, "update_bn", 1000)
    for number in ("5", "6"):
        train(small(run_dir, *average, "--eval.num_images", number))
        assert results(run_dir)["wall_s"] == waited_for


def test_a_checkpoint_of_an_earlier_version_has_waited_for_its_training(tmp_path):
    kept = {"epoch": 1, "step_in_epoch": 2, "names": ["loss"], "epoch_s": 3.0, "train_s": 7.0, "rows": [], "sums": None}
    progress = saving._progress(kept)
    assert (progress.epoch_s, progress.epoch_wall_s) == (3.0, 3.0)
    assert (progress.train_s, progress.train_wall_s) == (7.0, 7.0)


def test_a_copy_on_the_host_is_the_state_in_its_own_memory():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    state = {"model": module.state_dict(), "rows": [{"epoch": 0}], "scale": (1.5, None), "name": "x"}
    copied, wait = on_host(state)
    wait()
    assert isinstance(copied["model"], OrderedDict)
    assert copied["model"]._metadata == state["model"]._metadata
    assert (copied["rows"], copied["scale"], copied["name"]) == ([{"epoch": 0}], (1.5, None), "x")
    before = {name: value.clone() for name, value in state["model"].items()}
    state["rows"].append({"epoch": 1})
    with torch.no_grad():
        for value in module.state_dict().values():
            value.add_(1)
    assert len(copied["rows"]) == 1
    for name, value in copied["model"].items():
        assert torch.equal(value, before[name]), name
        assert value.stride() == before[name].stride(), name
        assert not value.requires_grad

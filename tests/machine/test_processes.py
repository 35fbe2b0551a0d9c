"""Sharing rows out; training and evaluation on two processes against one; a worker that is killed."""

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fastmagn.config.schema import Config, DataConfig
from fastmagn.data import DeviceSource, load_images, split_validation
from fastmagn.errors import InputError
from fastmagn.evaluation.run import evaluate_run
from fastmagn.machine.hardware import settle_hardware
from fastmagn.machine.processes import World, fresh_store
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training import run as training
from fastmagn.training.build import build_run
from fastmagn.training.callbacks import NO_CALLBACKS
from fastmagn.training.run import train
from fastmagn.training.same_images import check_classes_of_all
from tests.helpers import smooth_network
from tests.helpers.commands import call
from tests.helpers.processes import LIMIT_S, ROOT, TWO_PROCESSES, run, start, wait_until
from tests.helpers.small_runs import config_for, knows_the_network, results, rows, small, state, weights
from tests.helpers.tiers import slow_but


@given(st.integers(0, 1000), st.integers(1, 16))
def test_shares_cover_all_rows_once_in_order_and_evenly(num_rows, size):
    shares = [World(rank, size).share(num_rows) for rank in range(size)]
    assert [row for share in shares for row in range(share.start, share.stop)] == list(range(num_rows))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


class InTurn(World):
    """A rank whose peers are other threads."""

    def gather(self, value):
        values, barrier = self.group
        values[self.rank] = value
        barrier.wait(60)
        found = list(values)
        barrier.wait(60)
        return found

    def max(self, number):
        return max(self.gather(number))


def on_three_ranks(call: Callable[[World], Any]) -> list[Any]:
    """What `call` returns on each rank, or the line that it ends with."""
    shared = [None] * 3, threading.Barrier(3)

    def outcome(rank):
        try:
            return call(InTurn(rank, 3, shared))
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(outcome, range(3)))


@pytest.mark.parametrize("failing", [(), (0,), (1,), (0, 1), (2,)])
def test_what_fails_on_one_rank_fails_on_all(failing):
    """With its own error there, and the same line elsewhere."""

    def work(rank):
        if rank in failing:
            raise InputError(f"data.dir: rank {rank} cannot read.")
        return rank

    found = on_three_ranks(lambda world: world.together(lambda: work(world.rank)))
    if not failing:
        assert found == [0, 1, 2]
        return
    lines = {rank: f"data.dir: rank {rank} cannot read." for rank in failing}
    assert found == [lines.get(rank, lines[failing[0]]) for rank in range(3)]


@pytest.mark.parametrize("failing", [(), (0,), (2,)])
def test_rank_0_goes_first(failing):
    """The others begin after it has ended; if it fails, none begins. One that fails ends all."""
    log = []

    def work(rank):
        log.append(f"{rank} begins")
        time.sleep(0.1)
        log.append(f"{rank} ends")
        if rank in failing:
            raise InputError(f"data.dir: rank {rank} cannot read.")
        return rank

    found = on_three_ranks(lambda world: world.rank_0_first(lambda: work(world.rank)))
    assert found == ([f"data.dir: rank {failing[0]} cannot read."] * 3 if failing else [0, 1, 2])
    assert log[:2] == ["0 begins", "0 ends"]
    assert len(log) == (2 if 0 in failing else 6)


def test_hosts_whose_classes_differ_end_with_one_line():
    """Else each makes a network of its own, and PyTorch compares their shapes."""
    config = Config(data=DataConfig(name="folder", dir=Path("photos")))
    names = [("ape", "bee"), ("ape",), ("ape", "bee")]
    line = "data.dir: photos has other classes for rank 1 than for rank 0; expected the same files on all hosts."
    assert on_three_ranks(lambda world: check_classes_of_all(world, config, names[world.rank])) == [line] * 3


@pytest.mark.parametrize("other", ["training", "test"])
def test_hosts_whose_images_differ_end_with_one_line_before_the_first_step(other, tmp_path, monkeypatch):
    """One file is missing on the second host, of three processes on two."""
    knows_the_network(monkeypatch)
    monkeypatch.setattr(training, "train_all", lambda *_: pytest.fail("it trains"))
    monkeypatch.setattr(  # a run of one process, as these have no process group
        *(training, "build_run"),
        lambda config, images, part, world, device: dataclasses.replace(build_run(config, images, part), world=world),
    )
    whole, part = load_images("digits", Path()), other.removesuffix("ing")
    lacking = dataclasses.replace(
        whole, **{f"{part}_{name}": getattr(whole, f"{part}_{name}")[1:] for name in ("images_u8", "labels")}
    )
    monkeypatch.setattr(training, "load_on_all", lambda world, config: whole if world.rank == 0 else lacking)
    config, shared = settle_hardware(small(tmp_path / "run")), ([None] * 3, threading.Barrier(3))

    def line(rank):
        with pytest.raises(InputError) as caught:
            training.train_in(InTurn(rank, 3, shared), torch.device("cpu"), config, NO_CALLBACKS, config.train)
        return str(caught.value)

    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(line, range(3)))
    fingerprint = f"{part}_fingerprint".removeprefix("train_")
    assert found == {
        f"data.dir: data has other {other} images or labels for rank 1, 2 than for rank 0 (fingerprint"
        f" {getattr(lacking, fingerprint)[:16]}, of rank 0 {getattr(whole, fingerprint)[:16]}); expected the same files"
        " on all hosts."
    }


@pytest.mark.slow
@pytest.mark.process
def test_images_that_cannot_be_used_are_one_line_on_every_rank(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part / "cat").mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / part / "cat" / "1.png")
    command = [*TWO_PROCESSES, "-m", "fastmagn.train", "--data.name", "folder", "--data.dir", str(tmp_path)]
    done = run([*command, "--device", "cpu"], tmp_path, expect=1)
    assert done.stderr.count(f"error: {tmp_path}/train: has one class folder, cat;") == 2
    assert "gloo" not in done.stderr.lower()


def met(store, size, order):
    """The stores of `size` processes that come to the meeting in this order, a moment between them."""
    with ThreadPoolExecutor(size) as pool:
        coming = {}
        for rank in order:
            coming[rank] = pool.submit(fresh_store, store.clone() if hasattr(store, "clone") else store, rank, size)
            time.sleep(0.05)
        return [coming[rank].result(60) for rank in range(size)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_processes_started_anew_share_a_store_without_what_was_left_in_it(order):
    """Whoever comes first, also where one of the attempt before never came."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    first = met(store, 3, (0, 1, 2))
    first[0].set("address", "old")
    assert first[1].get("address") == first[2].get("address") == b"old"
    store.set("meeting/asks/1", "a process that was killed while it waited")
    second = met(store, 3, order)
    assert not any(part.check(["address"]) for part in second)
    second[0].set("address", "new")
    assert second[1].get("address") == second[2].get("address") == b"new"


SHORT = ["--train.batch_size", "64", "--device", "cpu", "--train.amp", "float32", "--eval.num_images", "20"]


@pytest.mark.slow
@pytest.mark.process
def test_two_processes_measure_what_one_does(tmp_path, monkeypatch, capsys):
    run_dir = tmp_path / "run"
    arguments = ["--train.max_steps", "20", "--device", "cpu", "--train.amp", "float32"]
    alone = train(config_for(arguments, run_dir, "--eval.num_images", "31"))
    command = [*TWO_PROCESSES, "-m", "fastmagn.evaluate", "--run_dir", str(run_dir), "--save_logits"]
    done = run(command, tmp_path)
    assert done.stdout.count("clean accuracy") == 1  # rank 0 alone prints
    together = json.loads((run_dir / "evaluation.json").read_text())
    assert together["num_images"] == 31
    for name in ("clean_accuracy", "corruption_accuracy", "mca", "class_accuracy"):
        assert together[name] == alone[name], name
    assert together["reliability"]["corrupt"]["count"] == alone["reliability"]["corrupt"]["count"]
    for name in ("clean", "corrupt"):
        assert together["rms_calibration_error"][name] == pytest.approx(alone["rms_calibration_error"][name], abs=1e-6)
    monkeypatch.chdir(tmp_path)
    call(["fastmagn.evaluate", "--logits", run_dir / "logits"], capsys)
    from_logits = json.loads((run_dir / "logits" / "evaluation.json").read_text())
    for name in ("clean_accuracy", "corruption_accuracy", "mca", "rms_calibration_error", "calibration", "reliability"):
        assert from_logits[name] == together[name], name
    assert together["class_accuracy"] == {"class_names": list("0123456789"), **from_logits["class_accuracy"]}


@pytest.mark.process
@pytest.mark.parametrize(
    "more",
    slow_but(
        [
            [],
            ["--model.bn_views", "per_view"],
            ["--optim.clip_norm", "0.1"],
            ["--optim.name", "adamw", "--optim.lr", "0.001"],
        ],
        [],
    ),
    ids=" ".join,
)
def test_two_processes_train_what_one_does(more, tmp_path, monkeypatch):
    """Twenty steps at the same global batch; batch normalisation over both processes' images; and the evaluation."""
    knows_the_network(monkeypatch)
    arguments = [*SHORT, "--train.max_steps", "20", "--model.name", "smooth"]
    arguments += ["--model.sync_bn", "true", "--optim.schedule", "step", "--optim.lr", "0.05", *more]
    alone = train(config_for(arguments, tmp_path / "alone"))
    command = [*TWO_PROCESSES, "-m", smooth_network.__name__, *arguments, "--run_dir", str(tmp_path / "two")]
    done = run(command, ROOT)
    assert "by 2 processes" in done.stdout
    assert done.stdout.count("clean accuracy") == 1  # rank 0 alone prints
    first, second = weights(tmp_path / "alone"), weights(tmp_path / "two")
    for name, value in first.items():
        difference = (second[name].double() - value.double()).abs().max().item()
        assert difference < 1e-5, name
    for one, two in zip(rows(tmp_path / "alone"), rows(tmp_path / "two"), strict=True):
        for name in ("loss", "cross_entropy", "consistency", "jensen_shannon", "train_accuracy"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
    together = results(tmp_path / "two")
    assert together["num_processes"] == 2
    assert together["num_images"] == alone["num_images"] == 20
    measured = evaluate_run(tmp_path / "two", config_for(arguments, tmp_path / "two"))
    for name in ("clean_accuracy", "corruption_accuracy", "mca"):
        assert together[name] == measured[name], name


@pytest.mark.slow
@pytest.mark.process
def test_a_killed_worker_is_restarted_and_the_run_goes_on(tmp_path):
    run_dir = tmp_path / "run"
    options = ("--max-restarts", "1", "--monitor-interval", "0.1")
    arguments = ["--train.epochs", "2", "--train.checkpoint_every_steps", "3", "--resume", "never"]
    command = [*TWO_PROCESSES, *options, "-m", "fastmagn.train", *SHORT, *arguments, "--run_dir", str(run_dir)]
    process = start(command, tmp_path)
    wait_until(last_checkpoint(run_dir).exists, process)
    os.kill(children_of(process.pid)[-1], signal.SIGKILL)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert "resumed at epoch" in output
    assert [row["epoch"] for row in rows(run_dir)] == [0, 1]
    assert results(run_dir)["steps"] == 2 * (len(load_images("digits", Path()).train_labels) // 64)


@pytest.mark.slow
@pytest.mark.process
def test_sigterm_stops_all_processes_at_one_step_with_a_checkpoint(tmp_path):
    run_dir = tmp_path / "run"
    command = [*TWO_PROCESSES, "-m", smooth_network.__name__, *SHORT, "--model.name", "smooth", "--train.epochs", "500"]
    command += ["--run_dir", str(run_dir), "--train.checkpoint_every_steps", "3"]
    process = start(command, ROOT)
    wait_until(last_checkpoint(run_dir).exists, process)
    process.terminate()
    output, errors = process.communicate(timeout=LIMIT_S)
    assert "interrupted; the same command resumes from the last checkpoint" in output, errors
    assert errors.count("interrupted by SIGTERM") == 2
    step = state(run_dir)["step"]
    done = run([*command, "--train.max_steps", str(step + 2)], ROOT)
    assert "resumed at epoch" in done.stdout
    assert state(run_dir)["step"] == step + 2


def children_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def test_a_batch_that_the_processes_do_not_divide_is_refused():
    image_set, config = load_images("digits", Path()), config_for(SHORT, Path("run"), "--train.batch_size", "33")
    message = "train.batch_size: got 33; expected a multiple of 2, for 2 processes with 1 accumulation steps each."
    for rank in range(2):
        with pytest.raises(InputError) as error:
            build_run(config, image_set, split_validation(image_set, 0, 0)[0], World(rank, 2))
        assert str(error.value) == message


@pytest.mark.parametrize("share", [slice(0, 8), slice(8, 16), slice(3, 5)])
def test_a_share_of_the_source_is_those_rows_of_the_whole(share):
    image_set = load_images("digits", Path())
    part, _ = split_validation(image_set, 0, 0)
    whole = DeviceSource(part, batch_size=16, seed=3, device="cpu")
    mine = DeviceSource(part, batch_size=16, seed=3, device="cpu", share=share)
    assert mine.steps_per_epoch == whole.steps_per_epoch
    for ours, all_rows in zip(mine.batches(1, 5), whole.batches(1, 5), strict=True):
        assert torch.equal(ours.images, all_rows.images[share])
        assert torch.equal(ours.labels, all_rows.labels[share])
        assert (ours.indices == all_rows.indices[share]).all()

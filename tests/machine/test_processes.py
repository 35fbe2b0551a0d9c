"""Sharing rows out; training and evaluation on two processes against one; a worker that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from fastmagn import models
from fastmagn.config.command_line import parse_config
from fastmagn.data import DeviceSource, load_images, split_validation
from fastmagn.machine.processes import World, fresh_store
from fastmagn.runs.checkpoint import read_checkpoint
from fastmagn.runs.paths import last_checkpoint
from fastmagn.training.run import train
from tests import smooth_network

ROOT = Path(__file__).parent.parent.parent


@given(st.integers(0, 1000), st.integers(1, 16))
def test_shares_cover_all_rows_once_in_order_and_evenly(num_rows, size):
    shares = [World(rank, size).share(num_rows) for rank in range(size)]
    assert [row for share in shares for row in range(share.start, share.stop)] == list(range(num_rows))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


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


def test_two_processes_measure_what_one_does(tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["--train.max_steps", "20", "--device", "cpu", "--train.amp", "float32", "--run_dir", str(run_dir)]
    alone = train(parse_config([*arguments, "--eval.num_images", "31"], "test", "A test."))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "fastmagn.evaluate", "--run_dir", str(run_dir), "--save_logits"]
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("clean accuracy") == 1  # rank 0 alone prints
    together = json.loads((run_dir / "evaluation.json").read_text())
    assert together["num_images"] == 31
    for name in ("clean_accuracy", "corruption_accuracy", "mca"):
        assert together[name] == alone[name], name
    assert together["reliability"]["corrupt"]["count"] == alone["reliability"]["corrupt"]["count"]
    for name in ("clean", "corrupt"):
        assert together["rms_calibration_error"][name] == pytest.approx(alone["rms_calibration_error"][name], abs=1e-6)
    command = [sys.executable, "-m", "fastmagn.evaluate", "--logits", str(run_dir / "logits")]
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    from_logits = json.loads((run_dir / "logits" / "evaluation.json").read_text())
    for name in ("clean_accuracy", "corruption_accuracy", "mca", "rms_calibration_error", "calibration", "reliability"):
        assert from_logits[name] == together[name], name


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SHORT = ["--train.batch_size", "64", "--device", "cpu", "--train.amp", "float32", "--eval.num_images", "20"]


def command_environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def torchrun(*arguments: str, module: str = "fastmagn.train") -> subprocess.CompletedProcess:
    command = [*TORCHRUN, "-m", module, *SHORT, *arguments]
    return subprocess.run(command, env=command_environment(), capture_output=True, text=True, check=False, timeout=500)


def checkpoint_of(run_dir: Path) -> dict:
    return read_checkpoint(last_checkpoint(run_dir), torch.device("cpu"))


def rows(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("bn_views", ["joint", "per_view"])
def test_two_processes_train_what_one_does(bn_views, tmp_path, monkeypatch):
    """Twenty steps at the same global batch; batch normalisation over both processes' images."""
    monkeypatch.setitem(models.MODELS, smooth_network.NAME, smooth_network.WHERE)
    arguments = ["--train.max_steps", "20", "--model.name", "smooth", "--model.bn_views", bn_views]
    arguments += ["--model.sync_bn", "true", "--optim.schedule", "step", "--optim.lr", "0.05"]
    alone = train(parse_config([*SHORT, *arguments, "--run_dir", str(tmp_path / "alone")], "test", "A test."))
    done = torchrun(*arguments, "--run_dir", str(tmp_path / "two"), module="tests.smooth_network")
    assert done.returncode == 0, done.stderr
    assert "by 2 processes" in done.stdout
    assert done.stdout.count("clean accuracy") == 1  # rank 0 alone prints
    first, second = checkpoint_of(tmp_path / "alone")["model"], checkpoint_of(tmp_path / "two")["model"]
    for name, value in first.items():
        difference = (second[name].double() - value.double()).abs().max().item()
        assert difference < 1e-5, name
    for one, two in zip(rows(tmp_path / "alone"), rows(tmp_path / "two"), strict=True):
        for name in ("loss", "cross_entropy", "consistency", "jensen_shannon", "train_accuracy"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
    together = json.loads((tmp_path / "two" / "results.json").read_text())
    assert together["num_processes"] == 2
    assert together["num_images"] == alone["num_images"] == 20


def test_a_killed_worker_is_restarted_and_the_run_goes_on(tmp_path):
    run_dir = tmp_path / "run"
    options = ("--max-restarts", "1", "--monitor-interval", "0.1")
    arguments = ["--train.epochs", "2", "--train.checkpoint_every_steps", "3", "--resume", "never"]
    command = [*TORCHRUN, *options, "-m", "fastmagn.train", *SHORT, *arguments, "--run_dir", str(run_dir)]
    process = subprocess.Popen(
        command, env=command_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 400
    while not last_checkpoint(run_dir).exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(children_of(process.pid)[-1], signal.SIGKILL)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert "resumed at epoch" in output
    assert [row["epoch"] for row in rows(run_dir)] == [0, 1]
    assert json.loads((run_dir / "results.json").read_text())["steps"] == 2 * (
        len(load_images("digits", Path()).train_labels) // 64
    )


def test_sigterm_stops_all_processes_at_one_step_with_a_checkpoint(tmp_path):
    run_dir = tmp_path / "run"
    command = [*TORCHRUN, "-m", "tests.smooth_network", *SHORT, "--model.name", "smooth", "--train.epochs", "500"]
    command += ["--run_dir", str(run_dir), "--train.checkpoint_every_steps", "3"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=command_environment(), cwd=ROOT, text=True, **pipes)
    deadline = time.monotonic() + 400
    while not last_checkpoint(run_dir).exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    output, errors = process.communicate(timeout=400)
    assert "interrupted; the same command resumes from the last checkpoint" in output, errors
    assert errors.count("interrupted by SIGTERM") == 2
    step = checkpoint_of(run_dir)["step"]
    done = subprocess.run(
        [*command, "--train.max_steps", str(step + 2)], env=command_environment(), cwd=ROOT, text=True, **pipes
    )
    assert done.returncode == 0, done.stderr
    assert "resumed at epoch" in done.stdout
    assert checkpoint_of(run_dir)["step"] == step + 2


def children_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def test_a_batch_that_the_processes_do_not_divide_is_refused(tmp_path):
    done = torchrun("--train.batch_size", "33", "--run_dir", str(tmp_path / "run"))
    assert done.returncode != 0
    message = "train.batch_size: got 33; expected a multiple of 2, for 2 processes with 1 accumulation steps each."
    assert f"error: {message}" in done.stderr
    assert not last_checkpoint(tmp_path / "run").exists()


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

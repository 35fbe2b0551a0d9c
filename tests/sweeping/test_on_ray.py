"""Whole sweeps on Ray, on this machine: a trial that fails, Ctrl-C, a killed sweep, and resuming it."""

import contextlib
import importlib.util
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fastmagn.runs.paths import last_checkpoint
from fastmagn.sweeping.arguments import parse_arguments
from fastmagn.sweeping.definition import make_trials
from fastmagn.sweeping.sweep import is_finished
from tests.helpers import processes
from tests.helpers.processes import LIMIT_S, run, wait_until
from tests.helpers.small_runs import assert_same_weights, state, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]
FIELDS = [
    *("--method", "standard", "--train.batch_size", "64", "--device", "cpu", "--train.amp", "float32"),
    *("--eval.num_images", "8", "--eval.corruption_set", "c15"),
]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return processes.start(["fastmagn.sweep", *FIELDS, *arguments, "--out", "sweep"], folder)


def finish(process: subprocess.Popen[str]) -> str:
    try:
        return "".join(process.communicate(timeout=LIMIT_S))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def trial_processes(folder: Path) -> list[int]:
    """The trials of this folder's sweep that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().decode(errors="replace")
            if "fastmagn.sweeping.trial" in words and str(folder) in words:
                found.append(int(path.name))
    return found


def test_a_failed_trial_is_named_the_others_go_on_and_a_report_ends_it(tmp_path):
    process = start(tmp_path, "--grid", "optim.lr=0.1,1e30", "--optim.schedule", "step", "--train.max_steps", "3")
    output = finish(process)
    assert process.returncode == 1, output
    good, bad = tmp_path / "sweep" / "lr-0.1", tmp_path / "sweep" / "lr-1e+30"
    results = json.loads((good / "results.json").read_text())
    assert f"lr-0.1: clean accuracy {100 * results['clean_accuracy']:.2f} %" in output
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "trial.log"} <= {path.name for path in good.iterdir()}
    assert "failed: lr-1e+30: cross_entropy: got a value that is not finite" in output
    assert "Lower optim.lr" in output
    assert not (bad / "results.json").exists()
    assert (tmp_path / "sweep" / "report" / "report.md").exists()
    assert f"{100 * results['mca']['c15']:.2f}" in output.split("trials by mCA c15")[1]
    assert "Traceback" not in output


def test_interrupted_and_killed_sweeps_go_on_bit_for_bit(tmp_path):
    arguments = ["--grid", "train.seed=0,1", "--train.epochs", "3", "--train.checkpoint_every_steps", "1"]
    runs = [tmp_path / "sweep" / f"seed-{seed}" for seed in (0, 1)]

    def steps(run_dir: Path) -> int:
        with contextlib.suppress(Exception):
            progress = state(run_dir)["progress"]
            return 18 * progress["epoch"] + progress["step_in_epoch"]
        return 0

    process = start(tmp_path, *arguments)
    wait_until(lambda: any(last_checkpoint(run).exists() for run in runs), process)
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    assert "the same command resumes the sweep" in output
    assert "Traceback" not in output
    assert not trial_processes(tmp_path)
    before = [steps(run) for run in runs]

    process = start(tmp_path, *arguments)
    wait_until(lambda: any(steps(run) > was for run, was in zip(runs, before, strict=True)), process)
    process.kill()
    finish(process)
    deadline = time.monotonic() + LIMIT_S
    while trial_processes(tmp_path):
        assert time.monotonic() < deadline, "trials outlive their sweep"
        time.sleep(0.1)

    process = start(tmp_path, *arguments)
    output = finish(process)
    assert process.returncode == 0, output
    for seed, run_dir in enumerate(runs):
        alone = [*FIELDS, *arguments[2:], "--train.seed", str(seed), "--run_dir", f"alone-{seed}"]
        run(["fastmagn.train", *alone], tmp_path, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")  # as a trial of one CPU
        assert_same_weights(weights(run_dir), weights(tmp_path / f"alone-{seed}"))

    request = parse_arguments([*FIELDS, *arguments, "--out", str(tmp_path / "sweep")])
    assert all(is_finished(trial) for trial in make_trials(request.arguments, request.search, request.out)[1])
    other = parse_arguments([*FIELDS, *arguments, "--eval.num_images", "9", "--out", str(tmp_path / "sweep")])
    assert not any(is_finished(trial) for trial in make_trials(other.arguments, other.search, other.out)[1])


LISTENING = """
import glob, json, os, pathlib
from fastmagn.sweeping import on_ray

def descendants(process):
    for task in glob.glob(f"/proc/{process}/task/*/children"):
        for child in pathlib.Path(task).read_text().split():
            yield child
            yield from descendants(child)

with on_ray._connected(None):
    assert on_ray.ray.get(on_ray.ray.remote(lambda: 1).remote()) == 1
    ours = set()
    for process in ("self", *descendants(os.getpid())):
        for link in glob.glob(f"/proc/{process}/fd/*"):
            try:
                ours.add(os.readlink(link))
            except OSError:
                pass
    rows = [line.split() for kind in ("tcp", "tcp6") for line in open(f"/proc/net/{kind}").readlines()[1:]]
    print(json.dumps([row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in ours]))
assert on_ray._REACHABLE not in os.environ
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}  # 127.0.0.1 and ::1


def test_ray_on_this_machine_listens_on_loopback_only(tmp_path):
    """The kernel's own table of listening sockets, of this process and all that Ray has started."""
    addresses = json.loads(run(["-c", LISTENING], tmp_path).stdout.splitlines()[-1])
    assert len(addresses) >= 4
    assert set(addresses) <= LOOPBACK

"""Sharing rows out, and evaluation on two processes against one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmagn.cli import parse_config
from fastmagn.distributed import World
from fastmagn.errors import InputError
from fastmagn.train import train

ROOT = Path(__file__).parent.parent


@given(st.integers(0, 1000), st.integers(1, 16))
def test_shares_cover_all_rows_once_in_order_and_evenly(num_rows, size):
    shares = [World(rank, size).share(num_rows) for rank in range(size)]
    assert [row for share in shares for row in range(share.start, share.stop)] == list(range(num_rows))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


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


def test_training_on_several_processes_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun: got 2 processes; expected 1"):
        train(parse_config(["--run_dir", str(tmp_path / "run")], "test", "A test."))
    assert not (tmp_path / "run").exists()

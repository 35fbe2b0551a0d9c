"""The harness's short version: kills, damage, a clock that jumps; all runs end as the undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_runs_that_are_harmed_end_as_the_undisturbed_one(tmp_path):
    out = tmp_path / "faults.json"
    only = "sigkill,sigterm,damage,clock_jumps"
    command = [sys.executable, "-m", "tests.faults", "--rounds", "2", "--seed", "1", "--only", only, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads(out.read_text())["trials"]
    assert [trial["faults"] for trial in trials] == [[]] * 8
    assert {trial["harm"] for trial in trials} == set(only.split(","))

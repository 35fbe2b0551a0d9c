"""The harness's short version: kills, damage, a clock that jumps; all runs end as the undisturbed one."""

import json

import pytest

from tests.helpers.processes import ROOT, run


@pytest.mark.slow
@pytest.mark.process
def test_runs_that_are_harmed_end_as_the_undisturbed_one(tmp_path):
    out = tmp_path / "faults.json"
    only = "sigkill,sigterm,damage,clock_jumps"
    run(["tests.faults", "--rounds", "2", "--seed", "1", "--only", only, "--out", str(out)], ROOT)
    trials = json.loads(out.read_text())["trials"]
    assert [trial["faults"] for trial in trials] == [[]] * 8
    assert {trial["harm"] for trial in trials} == set(only.split(","))

"""The benchmark of the ways to wait runs, and its JSON holds what it says. No time is asserted."""

import json

import pytest

from benchmarks.waiting import SETTINGS, main


@pytest.mark.slow
@pytest.mark.process
def test_result_has_its_schema(tmp_path, capsys):
    out = tmp_path / "waiting.json"
    assert main(["--busy", "1", "--seconds", "0.1", "--turns", "1", "--out", str(out), "--train.batch_size", "8"]) == 0
    result = json.loads(out.read_text())
    assert result["benchmark"] == "waiting"
    assert set(result["images_per_s_beside"]["1"]) == set(SETTINGS)
    for rate in result["images_per_s_beside"]["1"].values():
        assert 0 < rate["lowest"] <= rate["median"] <= rate["highest"]
    assert "beside 1 other process" in capsys.readouterr().out

"""The benchmark of the commands' start runs, and its JSON holds what it says. No time is asserted."""

import json

import pytest

from benchmarks.start import COMMANDS, main
from fastmagn.__main__ import VERBS


def test_every_command_is_measured():
    assert set(COMMANDS) == set(VERBS)


@pytest.mark.slow
@pytest.mark.process
def test_result_has_its_schema(tmp_path, capsys):
    out = tmp_path / "start.json"
    assert main(["--repeats", "1", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["benchmark"] == "start"
    assert set(result["help"]) == set(VERBS)
    for measured in result["help"].values():
        for name in ("wall_s", "cpu_s", "peak_mib"):
            assert 0 < measured[name]["lowest"] <= measured[name]["median"] <= measured[name]["highest"]
        assert measured["peak_mib"]["lowest"] > 8, "a Python process is no smaller"
    assert "peak, MiB" in capsys.readouterr().out

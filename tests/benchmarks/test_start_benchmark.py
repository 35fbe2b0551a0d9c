"""The benchmark of starts runs, and its JSON holds what it says. No time is asserted."""

import json
import subprocess

import pytest

from benchmarks import start as benchmark
from benchmarks.start import ANSWERS, COMMANDS, RUNS, Start, is_there, main, start
from fastmagn.__main__ import VERBS


def test_every_command_is_measured():
    assert set(COMMANDS) == set(VERBS)
    assert all(is_there(name, None) for name in COMMANDS)


def test_an_older_checkout_has_fewer_commands(tmp_path):
    (tmp_path / "fastmagn" / "theory").mkdir(parents=True)
    (tmp_path / "fastmagn" / "train.py").touch()
    assert [name for name in COMMANDS if is_there(name, tmp_path)] == ["train", "theory"]


@pytest.mark.process
def test_what_a_process_starts_counts_as_its_own():
    """A process and its child work for 0.2 s of CPU each."""
    work = "import time\nwhile time.process_time() < 0.2: pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}], check=True)\n{work}"
    measured = start(["-c", program])
    assert measured.cpu_s >= 0.4
    assert measured.peak_mib > 8, "a Python process is no smaller"


def test_the_json_of_another_checkout_names_its_commit(tmp_path, monkeypatch):
    """Nothing is timed."""
    monkeypatch.setattr(benchmark, "measure_turn", lambda *_, **__: {"answers": {"import": Start(1.0, 1.0, 9.0)}})
    monkeypatch.setattr(benchmark, "print_table", lambda measured: None)
    checkout, git = tmp_path / "older", ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q", str(checkout)], check=True)
    subprocess.run([*git, "-C", str(checkout), "commit", "-q", "--allow-empty", "-m", "older"], check=True)
    head = subprocess.run([*git, "-C", str(checkout), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert main(["--turns", "1", "--checkout", str(checkout), "--out", str(tmp_path / "start.json")]) == 0
    settings = json.loads((tmp_path / "start.json").read_text())["settings"]
    assert settings["checkout_commit"] == head.stdout[:12]


@pytest.mark.slow
@pytest.mark.process
def test_result_has_its_schema(tmp_path, capsys, monkeypatch):
    runs = {"a step and its evaluation": RUNS["a step and its evaluation"]}
    monkeypatch.setattr(benchmark, "RUNS", runs)  # each compiles all kernels once
    out = tmp_path / "start.json"
    assert main(["--turns", "1", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["benchmark"] == "start"
    assert set(result["help"]) == set(VERBS)
    assert set(result["answers"]) == set(ANSWERS)
    assert set(result["warm"]) == set(result["cold"]) == set(runs)
    for measured in (cell for kind in ("answers", "help", "warm", "cold") for cell in result[kind].values()):
        for name in ("wall_s", "cpu_s", "peak_mib"):
            assert 0 < measured[name]["lowest"] <= measured[name]["median"] <= measured[name]["highest"]
        assert measured["peak_mib"]["lowest"] > 8, "a Python process is no smaller"
    assert "peak, MiB" in capsys.readouterr().out

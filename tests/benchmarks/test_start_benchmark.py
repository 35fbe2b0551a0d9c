"""The benchmark of starts runs, and its JSON holds what it says. No time is asserted."""

import json
import re
import subprocess
import sys
from contextlib import suppress

import pytest

from benchmarks import start as benchmark
from benchmarks.start import ANSWERS, COMMANDS, RUNS, Start, is_there, main, start
from fastmagn.__main__ import VERBS
from fastmagn.config.schema import Config
from tests.helpers.commands import call


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


WRITES = "import os, sys; print(sys.argv, os.environ.get('NUMBA_CACHE_DIR'), file=open({!r}, 'a'))"


@pytest.mark.process
def test_result_has_its_schema(tmp_path, capsys, monkeypatch):
    """Of one light process of each kind; a run gets a folder of its own, and a cold one that of its kernels too."""
    seen, out = tmp_path / "seen", tmp_path / "start.json"
    monkeypatch.setenv("NUMBA_CACHE_DIR", "kept")
    monkeypatch.setattr(benchmark, "ANSWERS", {"an answer": ["-c", "pass"]})
    monkeypatch.setattr(benchmark, "COMMANDS", ("warm_up",))
    monkeypatch.setattr(benchmark, "RUNS", {"a run": ["-c", WRITES.format(str(seen))]})
    assert main(["--turns", "1", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["benchmark"] == "start"
    kinds = {"answers": "an answer", "help": "warm_up", "warm": "a run", "cold": "a run"}
    for kind, name in kinds.items():
        assert set(result[kind]) == {name}
        measured = result[kind][name]
        for number in ("wall_s", "cpu_s", "peak_mib"):
            assert 0 < measured[number]["lowest"] <= measured[number]["median"] <= measured[number]["highest"]
        assert measured["peak_mib"]["lowest"] > 8, "a Python process is no smaller"
    lines = seen.read_text().splitlines()
    runs = [re.fullmatch(r"\['-c', '--run_dir', '(.+)/run'\] (.+)", line).groups() for line in lines]
    assert len({folder for folder, _ in runs}) == 3
    assert [kernels for _, kernels in runs] == ["kept", "kept", f"{runs[2][0]}/kernels"]  # the first is not counted
    assert "peak, MiB" in capsys.readouterr().out


@pytest.mark.parametrize("words", [*ANSWERS.values(), *RUNS.values()], ids=[*ANSWERS, *RUNS])
def test_what_is_measured_can_be_started(words, tmp_path, monkeypatch, capsys):
    """In this process, and a run up to its first step."""
    begun = []

    def train(config: Config, *_: object) -> None:
        begun.append((config.train.max_steps, config.eval.num_images, config.run_dir))
        raise SystemExit

    monkeypatch.setattr("fastmagn.training.run.train", train)
    option, program, *others = words
    run_dir = ["--run_dir", str(tmp_path)] if words in RUNS.values() else []
    if option == "-m":
        call([program, *others, *run_dir], capsys)
    else:
        monkeypatch.setattr(sys, "argv", [option, *others, *run_dir])
        with suppress(SystemExit):
            exec(program, {})
    assert begun == ([(1, 8, tmp_path)] if run_dir else [])

"""The harness's short versions: kills, damage, a clock that jumps, calls that fail; all end as the undisturbed run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import shim
from tests.faults.power import unflushed
from tests.faults.shim import Call
from tests.helpers.processes import ROOT, command_environment, run


@pytest.mark.slow
@pytest.mark.process
def test_runs_that_are_harmed_end_as_the_undisturbed_one(tmp_path):
    out = tmp_path / "faults.json"
    only = "sigkill,sigterm,damage,clock_jumps"
    run(["tests.faults", "--rounds", "2", "--seed", "1", "--only", only, "--out", str(out)], ROOT)
    trials = json.loads(out.read_text())["trials"]
    assert [trial["faults"] for trial in trials] == [[]] * 8
    assert {trial["harm"] for trial in trials} == set(only.split(","))


needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, which builds the library of faults")


def trials_of_calls(folder: Path, *arguments: str) -> list[dict]:
    out = folder / "calls.json"
    assert shim.run_with_library("tests.faults.calls", [*arguments, "--out", str(out)]) == 0
    return json.loads(out.read_text())


@needs_gcc
@pytest.mark.process
def test_calls_that_fail_in_an_export(tmp_path):
    """The other commands are in the slow tier, and all calls in `python -m tests.faults.calls`."""
    faults = "kill before,ENOSPC once,power cut"
    trials = trials_of_calls(tmp_path, "--only", "export", "--sample", "2", "--faults", faults)
    assert [trial["faults"] for trial in trials] == [[]] * (2 + 2 + 1)


@needs_gcc
@pytest.mark.slow
@pytest.mark.process
def test_calls_that_fail_in_every_command(tmp_path):
    trials = trials_of_calls(tmp_path, "--sample", "1")
    assert [trial["faults"] for trial in trials] == [[]] * 6 * (8 + 4 + 1)
    assert {trial["command"] for trial in trials} == {"train", "evaluate", "report", "corrupt", "export", "sweep"}


FILES = """
import os, sys
from pathlib import Path
from tests.faults import shim
folder, fault, target, error, sticky = sys.argv[1:]
shim.arm(shim.Fault[fault], Path(folder), target=int(target), error=int(error), is_sticky=sticky == "True",
         log=Path(folder + ".log"))
os.chdir(folder)
for name in ("a", "b"):
    try:
        with open("new", "wb", buffering=0) as file:
            print(name, file.write(b"12345678"))
            os.fsync(file.fileno())
        os.replace("new", name)
    except OSError as failure:
        print(name, failure.strerror)
"""


@needs_gcc
@pytest.mark.process
@pytest.mark.parametrize(
    ("fault", "status", "shown", "left"),
    [
        ("COUNT 0 0 False", 0, "a 8\nb 8\n", {"a": 8, "b": 8}),
        ("KILL_BEFORE 4 0 False", -9, "a 8\n", {"new": 8}),
        ("KILL_AFTER 4 0 False", -9, "a 8\n", {"a": 8}),
        ("FAIL 4 28 False", 0, "a 8\na No space left on device\nb 8\n", {"b": 8}),
        ("FAIL 4 5 True", 0, "a 8\na Input/output error\nb Input/output error\n", {"new": 8}),
        ("SIGNAL 4 15 False", -15, "a 8\n", {"new": 8}),
        ("HALF 2 0 False", 0, "a 4\nb 8\n", {"a": 4, "b": 8}),
    ],
)
def test_the_library_of_faults(fault, status, shown, left, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    library = shim.build(tmp_path)
    words = [sys.executable, "-u", "-c", FILES, str(folder), *fault.split()]
    environment = command_environment(LD_PRELOAD=str(library))
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, shown, "")
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == left
    calls = shim.read_log(tmp_path / "folder.log")
    assert [(call.number, call.kind) for call in calls[:4]] == list(enumerate(("open", "write", "fsync", "rename"), 1))
    assert calls[3][2:] == (f"{folder}/a", f"{folder}/new")


def test_what_a_power_cut_could_take():
    good = [("open", "/d/new", ""), ("write", "/d/new", ""), ("fsync", "/d/new", ""), ("rename", "/d/a", "/d/new")]
    good += [("fsync", "/d", "")]

    def faults(calls: list[tuple[str, str, str]]) -> list[str]:
        return unflushed(Call(number, *call) for number, call in enumerate(calls))

    assert faults(good) == []
    assert faults(good[:4]) == ["the name /d/a was not flushed"]
    assert faults(good[:2] + good[3:]) == ["/d/new was not flushed when /d/a got its name", "/d/a was not flushed"]
    folder = [("mkdir", "/d/n", ""), ("open", "/d/n/f", ""), ("write", "/d/n/f", ""), ("fsync", "/d/n/f", "")]
    moved = [("rename", "/d/m", "/d/n"), ("fsync", "/d", "")]
    assert faults([*folder, ("fsync", "/d/n", ""), *moved]) == []
    assert faults([*folder, *moved]) == [
        "/d/n was not flushed when /d/m got its name",
        "the name /d/m/f was not flushed",
    ]
    assert faults([*folder, ("unlink", "/d/n/f", ""), ("unlink", "/d/n", "")]) == []

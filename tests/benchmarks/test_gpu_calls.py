"""The scripts for a GPU machine: rehearsed whole on the CPU, and what becomes of parts that fail or hang."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT, command_environment

SCRIPTS = ROOT / "benchmarks" / "gpu"
MACHINE = {"nvidia-smi.txt", "cpu.txt", "packages.json", "environment.json", "parts.jsonl"}
# The files that each part of a script leaves, beside its log.
PARTS = {
    "first_call.sh": {
        "compile": [],
        "tests": ["tests.xml"],
        "view_times": ["view_times.json"],
        "step_kernels": ["step_kernels.json"],
        "augment32": ["augment32.json"],
        "augment32_8192": ["augment32_8192.json"],
        "augment224": ["augment224.json"],
        "train": ["train.json"],
        "fast": ["fast/results.json", "fast/metrics.jsonl", "fast/checkpoints/last.pt"],
    },
    "second_call.sh": {
        "paper": ["paper/results.json", "paper/metrics.jsonl", "paper/checkpoints/last.pt"],
        "report": ["report/report.html"],
    },
    "third_call.sh": dict.fromkeys(("views32", "ncu32", "ncu224", "racecheck32", "racecheck224", "memcheck32"), ()),
}


def parts(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "parts.jsonl").read_text().splitlines()]


def call(script: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = command_environment(**variables)
    command = ["bash", str(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("script", PARTS)
def test_a_rehearsal_runs_every_part_and_leaves_every_file(script, tmp_path):
    out = tmp_path / "out"
    done = call(SCRIPTS / script, out, FASTMAGN_REHEARSE="1", FASTMAGN_CALL_S="1200", PYTHON=sys.executable)
    assert done.returncode == 0, done.stderr
    logs = {part["part"]: (out / f"{part['part']}.log").read_text()[-2000:] for part in parts(out) if part["status"]}
    assert logs == {}
    assert {part["part"] for part in parts(out)} == set(PARTS[script])
    expected = MACHINE | {f"{part}.log" for part in PARTS[script]}
    expected |= {name for names in PARTS[script].values() for name in names}
    assert [name for name in sorted(expected) if not (out / name).is_file()] == []
    assert json.loads((out / "environment.json").read_text())["device"]
    assert "done" in done.stdout
    if script == "second_call.sh":  # the next call resumes from a folder that is given
        again = tmp_path / "again"
        done = call(
            SCRIPTS / script, again, out / "paper", FASTMAGN_REHEARSE="1", FASTMAGN_CALL_S="600", PYTHON=sys.executable
        )
        assert "is finished" in (again / "paper.log").read_text()


SCRIPT = """
source "{common}"
part good 20 echo fine
part bad 20 bash -c "echo wrong >&2; exit 7"
part hangs 3 sleep 60
call_s=0
part late 20 echo never
part after 20 echo never
finish
"""


@pytest.mark.process
def test_a_part_that_fails_hangs_or_has_no_time_left_is_recorded_and_the_next_one_begins(tmp_path):
    script = tmp_path / "call.sh"
    script.write_text(SCRIPT.format(common=SCRIPTS / "common.sh"))
    done = call(script, tmp_path / "out", PYTHON="/bin/true")
    assert done.returncode == 0, done.stderr
    found = {part["part"]: part for part in parts(tmp_path / "out")}
    assert {name: part["status"] for name, part in found.items()} == {
        **{"good": 0, "bad": 7, "hangs": 124, "late": -1, "after": -1}
    }
    assert found["hangs"]["limit_s"] == 3
    assert (tmp_path / "out" / "good.log").read_text() == "fine\n"
    assert (tmp_path / "out" / "bad.log").read_text() == "wrong\n"


@pytest.mark.process
@pytest.mark.parametrize("script", PARTS)
def test_a_script_without_a_folder_that_can_be_made_says_how_it_is_called(script, tmp_path):
    (tmp_path / "file").touch()
    for arguments in ([], [tmp_path / "file" / "out"]):
        done = call(SCRIPTS / script, *arguments)
        assert done.returncode == 2
        assert "usage: " in done.stderr
        assert "OUT" in done.stderr
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["FASTMAGN_DATA", "FASTMAGN_WHEELS", "RUN"])
def test_a_folder_that_is_not_there_ends_the_call_before_it_costs_minutes(name, tmp_path):
    """Otherwise the digits stand in for the data, or a training begins again."""
    lost = str(tmp_path / "lost")
    variables = {"FASTMAGN_DATA": "", "FASTMAGN_REHEARSE": "1", "FASTMAGN_CALL_S": "0", "PYTHON": "true"}
    arguments = [lost] if name == "RUN" else []
    done = call(SCRIPTS / "second_call.sh", tmp_path / "out", *arguments, **variables | {name: lost})
    assert (done.returncode, done.stderr) == (2, f"error: {name}: got '{lost}'; expected a folder.\n")
    assert not (tmp_path / "out" / "paper").exists()


@pytest.mark.parametrize("script", PARTS)
def test_a_machine_without_a_gpu_ends_the_call_before_its_parts(script, tmp_path):
    done = call(SCRIPTS / script, tmp_path / "out", PYTHON="/bin/false", FASTMAGN_REHEARSE="", FASTMAGN_DATA="")
    remedy = "FASTMAGN_REHEARSE=1 runs every part at toy size on the CPU."
    assert done.returncode == 2
    assert done.stderr == f"error: /bin/false: its PyTorch finds no CUDA device; {remedy}\n"
    assert not (tmp_path / "out" / "parts.jsonl").exists()


def test_an_interpreter_may_be_named_from_the_folder_of_the_call(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/bin/true")
    script = f'source "{SCRIPTS / "common.sh"}" out; echo "$python"'
    done = subprocess.run(
        ["bash", "-c", script],
        env=command_environment(FASTMAGN_DATA="", FASTMAGN_WHEELS="", PYTHON="bin/python"),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout == f"{tmp_path}/bin/python\n", done.stderr

"""The scripts for a GPU machine: what they tell their modules to do, and what becomes of parts that fail or hang."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT, command_environment

SCRIPTS = ROOT / "benchmarks" / "gpu"
MACHINE = {"nvidia-smi.txt", "cpu.txt", "packages.json", "environment.json", "parts.jsonl"}
# The files that each part of a script is told to write, beside its log.
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
        "fast": ["fast/results.json"],
    },
    "second_call.sh": {"paper": ["paper/results.json"], "report": ["report/report.html"]},
    "third_call.sh": dict.fromkeys(("views32", "ncu32", "ncu224", "racecheck32", "racecheck224", "memcheck32"), ()),
}
# What each module calls once it has understood its arguments.
FIRST_WORK = {
    **{"benchmarks.train": "load_data", "benchmarks.augment": "load_test_images", "fastmagn.train": "train"},
    **{"fastmagn.report": "warn_if_code_changed", "benchmarks.gpu.view_times": "measured"},
    **{"benchmarks.gpu.step_kernels": "load_data", "benchmarks.gpu.views": "sample_view_params"},
}
# In place of Python, ncu and compute-sanitizer: it notes its words and makes what a module is told to write.
STUB = """#!{python} -IS
import json, os, subprocess, sys
from pathlib import Path
name, words = Path(sys.argv[0]).name, sys.argv[1:]
module = words[1] if words[0] == "-m" else ""
if name != "python":
    sys.exit(subprocess.run(words[words.index({stub!r}) :], check=False).returncode)
if not module.startswith(("benchmarks", "fastmagn", "pytest")):
    if words[0] == "-" or os.environ["FASTMAGN_REHEARSE"]:
        os.execv({python!r}, [{python!r}, *words])
    sys.exit()
with open({seen!r}, "a") as seen:
    seen.write(json.dumps([module, words[2:]]) + "\\n")
for option, file in (("--out", "report.html"), ("--run_dir", "results.json"), ("--junitxml", "")):
    for place, word in enumerate(words):
        if word.split("=")[0] == option:
            path = Path(word.split("=")[1] if "=" in word else words[place + 1])
            path = path if path.suffix else path / file
            path.parent.mkdir(exist_ok=True)
            path.touch()
"""


@pytest.fixture
def stub(tmp_path) -> Path:
    """A folder of stubs, which note what they are given in its file `seen`."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    text = STUB.format(python=sys.executable, stub=str(folder / "python"), seen=str(folder / "seen"))
    for name in ("python", "ncu", "compute-sanitizer"):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def given(stub: Path) -> list[tuple[str, list[str]]]:
    """The modules that were called, and their arguments; each once."""
    calls = dict.fromkeys((stub / "seen").read_text().splitlines())
    return [tuple(json.loads(line)) for line in calls]


class Understood(Exception):
    """A module has come to its work."""


def understands(module: str, arguments: list[str]) -> None:
    """A module comes to its work, on a machine without a GPU; pytest's tests are there."""
    if module == "pytest":
        tests = [word for word in arguments if word.startswith("tests/")]
        assert tests
        for path, _, test in (word.partition("::") for word in tests):
            assert (ROOT / path).exists()
            assert not test or f"def {test}(" in (ROOT / path).read_text()
        return

    def work(*_: object, **__: object) -> None:
        raise Understood

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(f"{module}.{FIRST_WORK[module]}", work)
        with pytest.raises(Understood):
            main_of(module)(["cpu" if word == "cuda" else word for word in arguments])


def main_of(module: str) -> Callable[[list[str]], int]:
    return importlib.import_module(module).main


def parts(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "parts.jsonl").read_text().splitlines()]


def call(script: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = command_environment(**variables)
    command = ["bash", str(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("rehearse", ["1", ""], ids=["rehearsal", "for_a_gpu"])
@pytest.mark.parametrize("script", PARTS)
def test_every_part_is_understood_and_writes_where_it_should(script, rehearse, stub, tmp_path, monkeypatch):
    """Each module in this process up to its work; in a rehearsal, the work too of those that no other test runs."""
    out, data = tmp_path / "out", tmp_path / "data"
    (data / "cifar-10-batches-py").mkdir(parents=True)
    variables = {"FASTMAGN_REHEARSE": rehearse, "FASTMAGN_CALL_S": "600", "FASTMAGN_DATA": str(data)}
    variables |= {"PYTHON": str(stub / "python"), "PATH": f"{stub}:{os.environ['PATH']}"}
    done = call(SCRIPTS / script, out, **variables)
    assert done.returncode == 0, done.stderr
    logs = {part["part"]: (out / f"{part['part']}.log").read_text()[-2000:] for part in parts(out) if part["status"]}
    assert logs == {}
    assert {part["part"] for part in parts(out)} == set(PARTS[script])
    expected = MACHINE | {f"{part}.log" for part in PARTS[script]}
    expected |= {name for names in PARTS[script].values() for name in names}
    assert [name for name in sorted(expected) if not (out / name).is_file()] == []
    assert "done" in done.stdout
    if rehearse:
        assert json.loads((out / "environment.json").read_text())["device"]
    monkeypatch.chdir(ROOT)
    calls = given(stub)
    assert len(calls) == (4 if script == "third_call.sh" else len(PARTS[script]))  # instruments watch the same calls
    for module, arguments in calls:
        understands(module, arguments)
        if "--device" in arguments:
            assert arguments[arguments.index("--device") + 1] == ("cpu" if rehearse else "cuda")
        if rehearse and (module.startswith("benchmarks.gpu.") or str(out / "fast") in arguments):
            shutil.rmtree(out / "fast", ignore_errors=True)
            assert main_of(module)(arguments) == 0
            assert all(json.loads(Path(word).read_text()) for word in arguments if word.endswith(".json"))
    if script == "first_call.sh" and rehearse:
        assert json.loads((out / "fast" / "results.json").read_text())["steps"] == 2
    if script == "second_call.sh":  # the next call resumes from a folder that is given
        (out / "paper" / "kept").touch()
        assert call(SCRIPTS / script, tmp_path / "again", out / "paper", **variables).returncode == 0
        assert (tmp_path / "again" / "paper" / "kept").exists()


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

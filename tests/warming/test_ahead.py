"""Kernels are compiled in processes that share the work, answer for it, and end with the process that started them."""

import json
import os
import signal
import sys
from itertools import chain
from pathlib import Path

import pytest

from fastmagn.errors import Interrupted
from fastmagn.machine.signals import interrupted_at_once
from fastmagn.warming import ahead
from fastmagn.warming.ahead import compile_ahead, compile_groups
from tests.helpers.processes import start, wait_until

# It stands for the real process: what it is asked, it writes to a file of its own, and it answers at once.
WORKER = """
import os, sys, time
print("what a library prints when Python starts")
answers = os.fdopen(int(sys.argv[1]), "w")
with open(f"asked-{os.getpid()}", "w") as asked:
    for line in sys.stdin:
        print(line.strip(), file=asked, flush=True)
        if line == "dies\\n":
            os._exit(3)
        time.sleep(600 if line == "takes long\\n" else 0.05)
        print("no such kernel" if line == "fails\\n" else "", file=answers, flush=True)
"""

pytestmark = pytest.mark.process


@pytest.fixture
def workers(tmp_path, monkeypatch):
    """At most three processes of WORKER, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ahead, "_WORKER", WORKER)
    monkeypatch.setattr(ahead, "num_threads", lambda: 3)


def asked(folder: Path) -> list[list[str]]:
    """What each process was asked."""
    return [path.read_text().split("\n")[:-1] for path in folder.glob("asked-*")]


def processes(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("asked-")) for path in folder.glob("asked-*")]


def is_alive(process: int) -> bool:
    """Whether it runs; one that has ended and that its parent has not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("num_groups", "num_processes"), [(7, 3), (2, 2), (1, 1)])
def test_each_group_is_compiled_once_by_no_more_processes_than_threads(num_groups, num_processes, workers, tmp_path):
    groups = [f"group {number}" for number in range(num_groups)]
    assert compile_groups(groups) == {}
    assert sorted(chain(*asked(tmp_path))) == groups
    assert len(asked(tmp_path)) == num_processes
    assert not any(map(is_alive, processes(tmp_path)))


def test_what_fails_is_named_and_the_others_are_compiled(workers, tmp_path):
    groups = ["fails", "dies", *(f"group {number}" for number in range(5))]
    assert compile_groups(groups) == {"fails": "no such kernel", "dies": "its process ended with status 3"}
    assert sorted(chain(*asked(tmp_path))) == sorted(groups)


def test_an_interruption_ends_the_processes(workers, tmp_path):
    def interrupt(*_: object) -> None:
        if len(asked(tmp_path)) == 3 and all(asked(tmp_path)):
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(Interrupted), interrupted_at_once():
            compile_groups(["takes long"] * 3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(processes(tmp_path)) == 3
    assert not any(map(is_alive, processes(tmp_path)))


# The real process, with a group that takes long; it notes its number.
SLOW = """
import os, pathlib, time
from fastmagn.warming import worker
def slow(name):
    pathlib.Path(f"asked-{os.getpid()}").touch()
    time.sleep(600)
worker.compile_group = slow
worker.main(int(sys.argv[1]))
"""
PARENT = f"""
from fastmagn.warming import ahead
ahead._WORKER = "import sys; sys.path[:] = sys.argv[2:]" + {SLOW!r}
ahead.num_threads = lambda: 2
ahead.compile_groups(["slow", "slow"])
"""


def test_a_killed_parent_leaves_no_process(tmp_path):
    with start(["-c", PARENT], tmp_path) as parent:
        wait_until(lambda: len(processes(tmp_path)) == 2, parent)
        assert all(map(is_alive, processes(tmp_path)))
        parent.kill()
        parent.communicate()
    with start(["-c", "import time; time.sleep(600)"], tmp_path) as other:
        wait_until(lambda: not any(map(is_alive, processes(tmp_path))), other)
        other.kill()


def test_the_real_process_answers_what_went_wrong(monkeypatch):
    monkeypatch.setattr(ahead, "num_threads", lambda: 1)
    faults = compile_groups(["perturb blur"])
    assert list(faults) == ["perturb blur"]
    assert faults["perturb blur"].startswith("UnknownName: perturbation: got 'blur'; expected one of gaussian_noise,")


@pytest.fixture
def told(monkeypatch, tmp_path) -> list[str]:
    """What was told, and which groups were compiled; three threads are allowed, and group `b` is in the cache."""
    made: list[str] = []
    monkeypatch.setattr(ahead, "num_threads", lambda: 3)
    monkeypatch.setattr(ahead, "shared_folder", lambda: tmp_path)
    monkeypatch.setattr(ahead, "are_kept", lambda name: name == "b")
    monkeypatch.setattr(ahead, "compile_groups", made.extend)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return made


def test_a_run_compiles_what_is_missing_and_says_so_first(told):
    compile_ahead(["a", "b", "c"], lambda: told.append("told"))
    assert told == ["told", "a", "c"]
    told.clear()
    compile_ahead(["b"], lambda: told.append("told"))
    assert told == []


@pytest.mark.parametrize("why", ["one thread", "no shared folder", "another process of torchrun"])
def test_a_run_compiles_nothing_ahead_where_it_does_not_help(why, told, monkeypatch):
    if why == "one thread":
        monkeypatch.setattr(ahead, "num_threads", lambda: 1)
    elif why == "no shared folder":
        monkeypatch.setattr(ahead, "shared_folder", lambda: None)
    else:
        monkeypatch.setenv("LOCAL_RANK", "1")
    compile_ahead(["a"], lambda: told.append("told"))
    assert told == []


@pytest.mark.parametrize("executable", ["/nonexistent/python", ""])
def test_a_run_goes_on_where_no_process_can_be_started(executable, monkeypatch, tmp_path):
    monkeypatch.setattr(ahead, "num_threads", lambda: 2)
    monkeypatch.setattr(ahead, "shared_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "executable", executable)
    compile_ahead(["draws"], lambda: None)


COVERED = """
import json, sys
from numba.core import event
from fastmagn.__main__ import main

class Compiled(event.Listener):
    names = []
    def on_start(self, event):
        self.names.append(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event):
        pass

try:
    with event.install_listener("numba:compile", Compiled()):
        main()
finally:
    with open("compiled.json", "w") as file:
        json.dump(Compiled.names, file)
"""


@pytest.mark.slow
def test_after_warming_up_no_command_compiles_anything(tmp_path):
    """In a fresh cache: a training with AugMix, with a policy and with PRIME, each with its evaluation; corrupt."""

    def compiled(*words: str) -> list[str]:
        variables = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
        with start(["-c", COVERED, *words], tmp_path, **variables) as process:
            shown, error = process.communicate()
        assert process.returncode == 0, error
        assert "compiling kernels" not in shown or words == ("warm-up",)
        return json.loads((tmp_path / "compiled.json").read_text())

    compiled("warm-up")
    short = ["--train.max_steps", "2", "--eval.num_images", "4", "--eval.corruption_set", "c19+cbar", "--device", "cpu"]
    for method in ("magn_augmix", "trivialaugment", "prime"):
        assert compiled("train", "--method", method, "--run_dir", method, *short) == []
    assert compiled("evaluate", "--run", "prime", "--perturbations", "--eval.num_images", "4") == []
    assert compiled("corrupt", "--dataset", "digits", "--out", "made", "--num_images", "4") == []
    assert compiled("warm-up") == []

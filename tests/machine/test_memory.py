"""Commands on a CPU keep the memory that they free: steps take few page faults, and have the same bits."""

import ctypes
import os
from types import SimpleNamespace

import pytest

from fastmagn import evaluate, train
from fastmagn.errors import InputError
from fastmagn.machine import memory
from fastmagn.machine.memory import keep_freed_memory
from fastmagn.theory import command as theory
from tests.helpers.processes import run

_VARIABLES = ("LD_PRELOAD", "GLIBC_TUNABLES")

# Some steps of a network whose activations, 64 MiB each, glibc maps anew at every step if left to itself.
STEPS = """
import resource, sys, torch
from fastmagn.machine.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
torch.manual_seed(0)
images = torch.rand(16, 3, 128, 128)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(64, 4, 3, padding=1), torch.nn.Flatten(2)
)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
for step in range(5):
    if step == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    loss = network(images).mean(2).square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item().hex())
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture
def not_chosen(monkeypatch):
    """The user has not chosen how memory is allocated."""
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name in _VARIABLES]:
        monkeypatch.delenv(name)


@pytest.fixture
def with_glibc(not_chosen):
    if not memory._has_glibc():
        pytest.skip("needs glibc")


@pytest.mark.process
def test_a_step_finds_its_memory_and_has_the_same_bits(with_glibc, tmp_path):
    """It takes hardly any page faults, where it has thousands; or dozens, where the system has large pages."""
    kept, left = (run(["-c", STEPS, which], tmp_path).stdout.split() for which in ("kept", "left"))
    assert kept[:-1] == left[:-1]
    assert len(set(kept[:-1])) == 5
    assert int(kept[-1]) < int(left[-1]) / 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_ARENA_MAX", "2"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
        ("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2"),
        ("LD_PRELOAD", "libtcmalloc_minimal.so.4"),
    ],
)
def test_what_the_user_has_chosen_stays(name, value, calls, monkeypatch):
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()
    assert calls == []


def test_other_tunables_are_no_choice_of_memory(calls, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
    assert keep_freed_memory()
    assert calls


@pytest.mark.parametrize("answer", ["", None, ValueError("unrecognized configuration name"), OSError(22, "invalid")])
def test_another_c_library_is_left_alone(answer, calls, monkeypatch):
    def confstr(name: str) -> str | None:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(os, "confstr", confstr)
    assert not keep_freed_memory()
    assert calls == []


MMAP, TRIM = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of <malloc.h>


@pytest.fixture
def calls(with_glibc, monkeypatch) -> list[tuple[int, int]]:
    """The calls of mallopt, which does not really happen; a test may set `refused`."""
    made: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        made.append((parameter, value))
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    return made


def test_an_older_glibc_allows_less(with_glibc, monkeypatch):
    """Up to 2.34 the threshold may be 32 MiB at most, HEAP_MAX_SIZE / 2; where none is allowed nothing changes.

    Any call would otherwise end glibc's own adjustment of the thresholds, which begins at 128 KiB.
    """
    made = []

    def older(limit: int) -> SimpleNamespace:
        def mallopt(parameter: int, value: int) -> int:
            allowed = parameter != MMAP or value <= limit
            made.append((parameter, value, allowed))
            return int(allowed)

        return SimpleNamespace(mallopt=mallopt)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: older(32 << 20))
    assert keep_freed_memory()
    assert [call[:2] for call in made if call[2]] == [(MMAP, 32 << 20), (TRIM, -1)]
    made.clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: older(0))
    assert not keep_freed_memory()
    assert not any(allowed for *_, allowed in made)


class _Asked(Exception):
    """The command has asked for it."""


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (train.main, []),
        (evaluate.main, ["--weights", "w.pt", "--data.name", "digits"]),
        (theory.main, ["r", "--out", "o"]),
    ],
)
def test_commands_on_a_cpu_ask_for_it(main, arguments, tmp_path, monkeypatch):
    def ask() -> None:
        raise _Asked

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastmagn.machine.hardware.keep_freed_memory", ask)
    with pytest.raises(_Asked):
        main([*arguments, "--device", "cpu"])
    with pytest.raises(InputError):  # there is no such device, or no such file
        main([*arguments, "--device", "cuda"])

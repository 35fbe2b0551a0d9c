"""What other kernels call is compiled once, without machine code of its own, and gives them what Python gives."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import types
from numba.core import event

import fastmagn_kernels
from fastmagn_kernels import compiling
from fastmagn_kernels.compiling import jit, jit_inlined


class Compiled(event.Listener):
    """The names of the functions that numba compiles, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_start(self, event: event.Event) -> None:
        self.names.append(event.data["dispatcher"].py_func.__name__)

    def on_end(self, event: event.Event) -> None:
        pass


@pytest.fixture
def compiled(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setattr(compiling, "cache_folder", lambda: str(tmp_path))
    listener = Compiled()
    with event.install_listener("numba:compile", listener):
        yield listener.names


def make_powers(**options: bool):
    """A kernel that calls another with two constants and with what is known at run time."""

    @jit(**options)
    def power(base, exponent):
        result = 1.0
        for _ in range(exponent):
            result *= base
        return result

    @jit
    def powers(base, exponent):
        return power(base, 2), power(base, 3), power(base, exponent)

    return powers


def test_one_version_serves_all_constants_and_what_is_known_at_run_time(compiled):
    assert make_powers()(1.5, 4) == (1.5**2, 1.5**3, 1.5**4)
    assert compiled == ["powers", "power"]


def test_a_version_for_each_constant_where_that_is_asked_for(compiled):
    assert make_powers(per_constant=True)(1.5, 4) == (1.5**2, 1.5**3, 1.5**4)
    assert compiled == ["powers", *["power"] * 3]


def test_python_calls_a_function_that_kernels_have_called(compiled):
    @jit
    def inner(number):
        return number + 0.5

    @jit
    def outer(number):
        return 2 * inner(number)

    assert outer(3) == 7
    assert inner(3) == 3.5
    assert compiled == ["outer", "inner", "inner"]
    (part,) = inner.part.overloads.values()
    assert part.library.get_pointer_to_function(part.fndesc.llvm_func_name) == 0
    assert part.fndesc.llvm_cpython_wrapper_name not in part.library.get_llvm_str()


def test_an_inlined_function_leaves_no_call_and_python_cannot_call_it(compiled):
    @jit_inlined
    def first(values):
        return values[0]

    @jit
    def twice_first(values):
        return 2 * first(values)

    assert twice_first(np.array([21])) == 42
    (version,) = twice_first.overloads.values()
    body = version.library.get_function(version.fndesc.llvm_func_name)
    assert not [line for line in str(body).splitlines() if " call " in line and "first" in line.split("@", 1)[1]]
    with pytest.raises(TypeError, match="first"):
        first(np.array([21]))


def test_arrays_that_a_part_makes_outlive_it(compiled):
    @jit
    def ramp(length):
        return np.arange(length) * 0.5

    @jit
    def sums(length):
        total = 0.0
        for k in range(length):
            total += ramp(k).sum()
        return total, ramp(3)

    total, last = sums(50)
    assert total == sum((np.arange(k) * 0.5).sum() for k in range(50))
    assert last.tolist() == [0.0, 0.5, 1.0]


# A part that raises and one that is called by two kernels; what is compiled in this process is printed at the end.
KERNELS = """
import sys
import numpy as np
from numba.core import event
from fastmagn_kernels.compiling import jit, jit_inlined
from tests.kernels.test_parts import Compiled

@jit
def checked(number):
    if number > 100:
        print("large", number)
    if number < 0:
        raise ValueError("a negative number")
    return np.sqrt(number)

@jit_inlined
def total(values):
    result = 0.0
    for k in range(values.size):
        result += checked(values[k])
    return result

@jit
def single(values):
    return total(values)

@jit
def double(values):
    return 2 * total(values)

listener = Compiled()
with event.install_listener("numba:compile", listener):
    for name in sys.argv[1:]:
        kernel = globals()[name]
        print(kernel(np.array([4.0, 9.0])), kernel(np.array([144.0])))
        try:
            kernel(np.array([4.0, -9.0]))
        except ValueError as error:
            print(error)
print(*listener.names)
"""


@pytest.mark.process
def test_parts_on_disk_serve_other_kernels_of_later_processes(tmp_path):
    (tmp_path / "own.py").write_text(KERNELS)
    paths = os.pathsep.join([str(Path(fastmagn_kernels.__file__).parents[1]), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run(*kernels: str) -> list[str]:
        command = [sys.executable, "own.py", *kernels]
        shown = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return shown.stdout.splitlines()

    negative = "a negative number"
    assert run("single") == ["large 144.0", "5.0 12.0", negative, "single total checked"]
    assert run("double") == ["large 144.0", "10.0 24.0", negative, "double"]
    both = ["large 144.0", "5.0 12.0", negative, "large 144.0", "10.0 24.0", negative]
    assert run("single", "double") == [*both, ""]


def test_a_constant_none_still_chooses_code(compiled):
    @jit
    def length(values):
        return 0 if values is None else values.size

    @jit
    def lengths(values):
        return length(None), length(values)

    assert lengths(np.zeros(3)) == (0, 3)
    assert compiled == ["lengths", "length", "length"]
    assert [args for args in length.part.overloads if args == (types.none,)]


WITHOUT_JIT = """
import numba
import numpy as np
from fastmagn_kernels.compiling import jit

@jit
def clipped(values):
    return np.clip(values, 0.0, 1.0).sum()

@jit
def kernel(values):
    return 2 * clipped(values)

@numba.njit
def users(values):
    return values

print(kernel(np.array([-1.0, 0.5, 3.0])), len(kernel.signatures), type(users).__name__, numba.config.DISABLE_JIT)
"""


@pytest.mark.process
def test_kernels_are_compiled_where_the_user_has_switched_numba_off(tmp_path):
    """Somebody who debugs functions of their own sets this. numba then fails within its library, at `np.clip` here."""
    (tmp_path / "own.py").write_text(WITHOUT_JIT)
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = str(Path(fastmagn_kernels.__file__).parents[1])
    command = [sys.executable, "own.py"]
    shown = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["3.0", "1", "function", "1"]

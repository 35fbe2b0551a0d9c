"""g++: `machine.cpp` and the handlers of instructions as shared libraries, each compiled once for a folder."""

import ctypes
import fcntl
import functools
import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.ptx.operations import names_header
from tests.ptx.table import Meaning, meaning

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
_FLAGS = ("-O1", "-std=c++17", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC", "-w")
_LETTERS = "abce"


class Builder:
    """Compiles into a folder, which processes may share, and keeps what it loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handlers: dict[str, int] = {}
        self._libraries: list[ctypes.CDLL] = []

    @functools.cached_property
    def machine(self) -> ctypes.CDLL:
        """The library of machine.cpp."""
        library = self._library("machine", (HERE / "machine.cpp").read_text())
        library.machine_new.restype = ctypes.c_void_p
        library.machine_run.restype = ctypes.c_uint64
        return library

    def handlers(self, mnemonics: Iterable[str]) -> dict[str, int]:
        """Return the address of the function that computes each instruction; compile what is missing, all at once."""
        missing = sorted(set(mnemonics) - self._handlers.keys())
        if missing:
            source = "\n".join(['#include "machine.hpp"', 'extern "C" {', *map(_handler_source, missing), "}"])
            library = self._library("handlers", source)
            for mnemonic in missing:
                address = ctypes.cast(getattr(library, _c_name(mnemonic)), ctypes.c_void_p).value
                self._handlers[mnemonic] = address
        return self._handlers

    def _library(self, name: str, source: str) -> ctypes.CDLL:
        headers = "".join(path.read_text() for path in sorted(HERE.glob("*.hpp"))) + names_header()
        key = hashlib.sha256("\0".join([source, headers, *_FLAGS]).encode()).hexdigest()[:16]
        made = self.made_once(f"{name}-{key}.so", lambda path: _compile(source, path))
        library = ctypes.CDLL(str(made))
        self._libraries.append(library)
        return library

    def made_once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return the file of this name, which `make` writes unless another process did; that one is waited for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        made = self.folder / name
        with made.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                partial = made.with_suffix(".partial")
                make(partial)
                partial.replace(made)
        return made


def _compile(source: str, made: Path) -> None:
    with TemporaryDirectory() as folder:
        (Path(folder) / "names.hpp").write_text(names_header())
        command = [COMPILER or "g++", *_FLAGS, f"-I{HERE}", f"-I{folder}", "-x", "c++", "-", "-o", made]
        done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"g++ failed:\n{done.stderr[:4000]}")


def _c_name(mnemonic: str) -> str:
    return "compute_" + re.sub(r"\W", "_", mnemonic)


def _handler_source(mnemonic: str) -> str:
    """One function: the table's expression, for each active lane of a warp."""
    known = meaning(mnemonic)
    reads, loads = [], []
    for i, c_type in enumerate(known.operands):
        letter = _LETTERS[i]
        if c_type == "pred":
            reads.append(f"const u32 {letter}s = predicate(warp, op.slots[{i + 1}]);")
            loads.append(f"const bool {letter} = {letter}s >> lane & 1;")
        else:
            reads.append(f"const auto* {letter}s = values<{c_type}>(warp, op.slots[{i + 1}]);")
            loads.append(f"const auto {letter} = {letter}s[lane];")
    return "\n".join(
        [
            f"void {_c_name(mnemonic)}(Warp& warp, const Operation& op, u32 active) {{  // {mnemonic}",
            *reads,
            *_result_source(known, " ".join(loads)),
            "if (divided_by_zero) { warp.divided_by_zero = true; divided_by_zero = false; }"
            if "quotient" in known.expression or "remainder" in known.expression
            else "",
            "}",
        ]
    )


def _result_source(known: Meaning, loads: str) -> list[str]:
    if known.result == "pred":
        return [
            "u32 holds = 0;",
            f"each_lane(active, [&](u32 lane) {{ {loads} holds |= u32(bool({known.expression})) << lane; }});",
            "u32& result = predicate(warp, op.slots[0]);",
            "result = (result & ~active) | holds;",
        ]
    return [
        f"auto* results = values<{known.result}>(warp, op.slots[0]);",
        f"each_lane(active, [=](u32 lane) {{ {loads} results[lane] = {known.expression}; }});",
    ]

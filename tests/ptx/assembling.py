"""ptxas and nvdisasm, where they are installed: registers, spills and stack of a kernel, and its machine instructions.

They come with the CUDA toolkit, with the package nvidia-cuda-nvcc, or with Triton, which PyTorch needs on Linux.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ARCHITECTURE = "sm_90a"


@dataclass(frozen=True)
class Resources:
    """What a thread of a kernel takes, and its block's static shared memory, in bytes but for `registers`."""

    registers: int
    spill_store_bytes: int
    spill_load_bytes: int
    stack_bytes: int
    shared_bytes: int

    def as_dict(self) -> dict[str, int]:
        """Return the numbers by their names."""
        return asdict(self)


def _candidates(tool: str) -> Iterable[Path]:
    """Where a tool may be, the best first."""
    on_path = shutil.which(tool)
    if on_path:
        yield Path(on_path)
    for package in ("nvidia", "triton"):
        spec = find_spec(package)
        for root in spec.submodule_search_locations or [] if spec else []:
            yield from sorted(Path(root).glob(f"**/bin/{tool}*"), reverse=True)
    yield from sorted(Path("/usr/local").glob(f"cuda*/bin/{tool}"), reverse=True)


@cache
def version_of(tool: Path) -> tuple[int, int]:
    """Return a tool's release, such as (13, 0)."""
    shown = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.search(r"release (\d+)\.(\d+)", shown).groups()))


@cache
def find_tool(tool: str, oldest: tuple[int, int] = (13, 0)) -> Path | None:
    """Return the path of `ptxas` or `nvdisasm`, of this release or a later one; None if there is none."""
    return next((path for path in _candidates(tool) if version_of(path) >= oldest), None)


def assemble(ptx: str, ptxas: Path, binary: Path | None = None, options: Iterable[str] = ()) -> Resources:
    """Assemble a kernel for a Hopper, and return what it takes; the binary is kept if `binary` names a file."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        out = binary or Path(folder) / "kernel.cubin"
        command = [ptxas, f"-arch={ARCHITECTURE}", "-v", *options, source, "-o", out]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ptxas failed:\n{done.stderr[:2000]}")
    shown = done.stderr
    stack, stores, loads = map(
        int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", shown).groups()
    )
    shared = re.search(r"(\d+) bytes smem", shown)
    registers = int(re.search(r"Used (\d+) registers", shown)[1])
    return Resources(registers, stores, loads, stack, int(shared[1]) if shared else 0)


def machine_instructions(ptx: str, lines: Iterable[int], ptxas: Path, nvdisasm: Path) -> dict[int, list[str]]:
    """Return the machine instructions that ptxas made of each of these lines of the PTX, by their names.

    ptxas moves, merges and repeats instructions, so this is an estimate, good for sums over many lines.
    """
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        assemble(_with_line_numbers(ptx, set(lines)), ptxas, binary, ["-lineinfo"])
        command = [nvdisasm, "-g", "-c", binary]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    made: dict[int, list[str]] = {}
    line = 0
    for row in shown.splitlines():
        place = re.search(r'//## File ".*", line (\d+)', row)
        instruction = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", row)
        if place:
            line = int(place[1])
        elif instruction and instruction[1] != "NOP":
            made.setdefault(line, []).append(instruction[1])
    return made


def _with_line_numbers(ptx: str, lines: set[int]) -> str:
    """The PTX with a `.loc` before each of these lines, which says its own number."""
    rows = ptx.split("\n")
    marked = [f"\t.loc 1 {number} 0\n{row}" if number in lines else row for number, row in enumerate(rows, 1)]
    return "\n".join([*marked, '.file 1 "kernel.ptx"', ""])


def machine_class(name: str) -> str:
    """Return the class of a machine instruction: what unit of a multiprocessor executes it."""
    base = name.split(".")[0]
    if base in ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX"):
        return "float64"
    if base in ("I2F", "F2I", "F2F", "FRND", "I2FP", "F2FP", "F2IP", "MUFU", "POPC", "FLO", "BREV"):
        return "alu" if base in ("I2FP", "F2FP") else "slow"
    if base in ("LDL", "STL"):
        return "stack"
    if base in ("LDS", "STS", "ATOMS", "LDSM"):
        return "shared"
    if base in ("LDG", "STG", "LD", "ST", "RED", "ATOM", "ATOMG", "LDC", "ULDC", "S2R", "S2UR"):
        return "constant" if base in ("LDC", "ULDC", "S2R", "S2UR") else "global"
    if base in ("BRA", "EXIT", "BSSY", "BSYNC", "BREAK", "CALL", "RET", "WARPSYNC", "BRX", "NANOSLEEP", "BMOV"):
        return "control"
    return "barrier" if base == "BAR" else "alu"

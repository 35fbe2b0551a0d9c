"""Every CUDA kernel of the package is known to these tests, and ptxas makes of it what is known."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
from tests.helpers.cuda_kernels import AT_MOST, KERNELS
from tests.helpers.tiers import slow_but
from tests.ptx.arguments import compile_once
from tests.ptx.assembling import Resources, assemble, find_tool

ROOT = Path(__file__).parents[2]
COMPILING = "fastmagn_kernels.augmix_cuda.compiling"
# What turns source into a kernel: ours, numba's, cuda.core's, and the names of NVRTC and of libraries with their own.
COMPILERS = {
    "machine_code",
    "jit",
    "Program",
    "nvrtcCreateProgram",
    "RawKernel",
    "RawModule",
    "load_inline",
    "declare_device",
}
SOURCES = {name: maker for makers in KERNELS.values() for name, maker in makers.items()}


def compiles_a_kernel(call: ast.Call) -> bool:
    """Whether a call makes a kernel; `cuda.jit(device=True)` makes a function that kernels call."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    of_cuda = isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "cuda"
    if name == "jit":
        return of_cuda and not any(keyword.arg == "device" for keyword in call.keywords)
    return name in COMPILERS


def functions_that_compile(root: Path) -> set[str]:
    """The dotted names of all functions, or of modules, that compile a CUDA kernel."""
    found = set()
    for path in sorted(root.rglob("*.py")):
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if any(isinstance(inner, ast.Call) and compiles_a_kernel(inner) for inner in ast.walk(node)):
                found.add(f"{module}.{getattr(node, 'name', '')}".rstrip("."))
    return {name for name in found if not name.startswith(COMPILING)}


def test_every_kernel_is_in_the_table():
    found = functions_that_compile(ROOT / "kernels" / "fastmagn_kernels") | functions_that_compile(ROOT / "fastmagn")
    assert found == set(KERNELS), "tests/helpers/cuda_kernels.py lists the kernels, tests/augment/engines runs them"


def test_a_new_kernel_would_be_found(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("def other_kernel(device):\n    return machine_code(name, source, device)\n")
    (package / "b.py").write_text("@cuda.jit(signature)\ndef kernel(a):\n    pass\n")
    (package / "c.py").write_text("def compiled():\n    return Program(SOURCE, 'c++').compile('cubin')\n")
    (package / "d.py").write_text("@cuda.jit(device=True)\ndef function(a):\n    pass\n")
    assert functions_that_compile(package) == {"package.a.other_kernel", "package.b.kernel", "package.c.compiled"}


@pytest.mark.parametrize("name", slow_but(SOURCES, next(iter(SOURCES))))
def test_a_thread_takes_no_more_than_is_known(name, ptx_builder):
    ptxas = find_tool("ptxas")
    if ptxas is None:
        pytest.skip("needs ptxas 13: the CUDA toolkit, the package nvidia-cuda-nvcc, or a newer Triton")
    taken = assemble(compile_once(ptx_builder, *SOURCES[name](), name=name), ptxas)
    more = {
        f.name: getattr(taken, f.name)
        for f in fields(Resources)
        if getattr(taken, f.name) > getattr(AT_MOST[name], f.name)
    }
    assert not more, f"{name} takes more than {AT_MOST[name]}"

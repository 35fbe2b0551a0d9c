"""One instruction on arrays of operands, the operands where arithmetic is hard, and exact roundings."""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tests.ptx.building import Builder
from tests.ptx.parsing import type_bytes
from tests.ptx.running import Kernel, Memory, output, pointer

DTYPES = {
    **{f"u{n}": np.dtype(f"u{n // 8}") for n in (8, 16, 32, 64)},
    **{f"s{n}": np.dtype(f"i{n // 8}") for n in (8, 16, 32, 64)},
    **{"f32": np.dtype(np.float32), "f64": np.dtype(np.float64), "f16": np.dtype(np.float16), "bf16": np.dtype("u2")},
}
SOURCES = ("u8", "s8", "u16", "s32", "u32", "s64", "u64")
INTEGERS = ("u16", "s16", "u32", "s32", "u64", "s64")
EDGES = [0, 1, 2, 3, 5, 7, 31, 32, 33, 63, 64, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31]
EDGES += [2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 0x12345678_9ABCDEF0, 0xDEADBEEF]
FLOATS = [
    0.0,
    0.5,
    1.0,
    1.5,
    2.5,
    3.0,
    1 / 3,
    0.1,
    255.0,
    1e-3,
    16777217.0,
    2.0**31,
    2.0**63,
    1e10,
    1e-310,
    1e-42,
    3e38,
]
FLOATS += [65504.0, 65520.0, 5.9e-8, 2.0**-149, 1e300, math.inf]
FLOATS = [*FLOATS, *(-value for value in FLOATS), math.nan]


def compute(builder: Builder, mnemonic: str, kinds: Sequence[str], *operands: np.ndarray) -> np.ndarray:
    """Run `mnemonic` on each element of the operands; `kinds` are the types of its result and of its operands."""
    count = len(operands[0])
    result = np.zeros(count, DTYPES[kinds[0]])
    lines = []
    for i, kind in enumerate(kinds):
        register = _register(kind)
        lines += [f".reg .{register} %v{i};", f"ld.param.u64 %rd1, [p{i}];"]
        lines += [f"mad.wide.u32 %rd{i + 2}, %r1, {type_bytes(kind)}, %rd1;"]
        if i:
            lines.append(f"ld.global.{_plain(kind)} %v{i}, [%rd{i + 2}];")
    names = ", ".join(f"%v{i}" for i in range(len(kinds)))
    lines += [f"{mnemonic} {names};", f"st.global.{_plain(kinds[0])} [%rd2], %v0;"]
    memory = [output(result), *(Memory(np.ascontiguousarray(operand)) for operand in operands)]
    kernel = Kernel(kernel_text(lines, len(kinds)), builder)
    report = kernel.launch(-(-count // 64), 64, [*(pointer(m.array) for m in memory), struct.pack("<I", count)], memory)
    assert not [fault for fault in report.faults if fault.kind != "division by zero"], report.faults
    return result


def _plain(kind: str) -> str:
    return {"f16": "b16", "bf16": "b16"}.get(kind, kind)


def _register(kind: str) -> str:
    bits = max(16, 8 * type_bytes(kind))
    return kind if kind in ("f32", "f64") else f"b{bits}"


def kernel_text(lines: Sequence[str], count: int) -> str:
    parameters = ", ".join(f".param .u64 p{i}" for i in range(count))
    body = "\n".join(lines)
    return f"""
.version 9.0
.target sm_90
.address_size 64
.visible .entry kernel({parameters}, .param .u32 count)
{{
    .reg .pred %p<9>;
    .reg .b32 %r<9>;
    .reg .b64 %rd<9>;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.s32 %r1, %r1, 64, %r2;
    ld.param.u32 %r2, [count];
    setp.ge.u32 %p1, %r1, %r2;
    @%p1 ret;
    {body}
    ret;
}}
"""


def integers(kind: str, operands: int) -> list[np.ndarray]:
    """All tuples of edge values, in the type of each operand."""
    dtype = DTYPES[kind]
    values = np.unique(np.array(EDGES, np.uint64).astype(dtype))
    return [np.ascontiguousarray(grid.ravel()) for grid in np.meshgrid(*[values] * operands)]


def floats(kind: str, operands: int) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        values = np.array(FLOATS).astype(DTYPES[kind])
    grids = np.meshgrid(*[values if i < 2 else values[::4] for i in range(operands)])
    return [np.ascontiguousarray(grid.ravel()) for grid in grids]


def wrapped(values: Sequence[int], kind: str) -> np.ndarray:
    """Python's integers as a type of limited width."""
    bits = 8 * DTYPES[kind].itemsize
    return np.array([value % 2**bits for value in values], np.uint64).astype(f"u{bits // 8}").view(DTYPES[kind])


def assert_bits(made: np.ndarray, expected: np.ndarray) -> None:
    """Equal bits; any NaN is equal to any other."""
    if made.dtype.kind == "f":
        np.testing.assert_array_equal(made, expected)
        np.testing.assert_array_equal(np.signbit(made) & ~np.isnan(made), np.signbit(expected) & ~np.isnan(expected))
    else:
        np.testing.assert_array_equal(made, expected)


def rounded(value: Fraction, dtype: np.dtype, mode: str) -> float:
    """The exact value in a rounding mode: the neighbours are compared as fractions."""
    with np.errstate(over="ignore"):
        near = dtype.type(float(value))
    around = [near, np.nextafter(near, dtype.type(-np.inf)), np.nextafter(near, dtype.type(np.inf))]
    around = [x for x in around if np.isfinite(x)]
    below = max((x for x in around if Fraction(float(x)) <= value), default=dtype.type(-np.inf))
    above = min((x for x in around if Fraction(float(x)) >= value), default=dtype.type(np.inf))
    if mode == "rn":
        distances = [value - Fraction(float(below)), Fraction(float(above)) - value]
        even = below if int(below.view(f"u{dtype.itemsize}")) % 2 == 0 else above
        return even if distances[0] == distances[1] else below if distances[0] < distances[1] else above
    return below if mode == "rm" or (mode == "rz" and value > 0) else above

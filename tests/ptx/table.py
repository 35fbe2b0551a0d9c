"""The table of instructions that compute: each row is a pattern of mnemonics, types, and the result as C++.

In an expression `a`, `b`, `c` and `e` are the operands, of the types named in `operands`. A type is one of u8..u64,
s8..s64, f32, f64, f16 and bf16 (bits), or pred. Functions are those of `arithmetic.hpp`. `{group}` is what a named
group of the pattern matched. Instructions that touch memory, other threads or the order of execution are not here: see
`memory_access.py`, `warp_wide.py` and `translating.py`.
"""

import re
from dataclasses import dataclass
from functools import cache

from tests.ptx.parsing import UnknownPtxError

ALU, FLOAT32, FLOAT64, CONVERSION, SLOW, MOVE = "alu", "float32", "float64", "conversion", "slow", "move"

_INT = r"(?P<T>[us](?:16|32|64))"
_BITS = r"(?P<T>[usb](?:16|32|64))"
_ROUND = r"(?:\.(?P<round>r[nzmp]))?"
_FTZ = r"(?P<ftz>\.ftz)?"
_SAT = r"(?P<sat>\.sat)?"


@dataclass(frozen=True)
class Meaning:
    """What an instruction computes: the C++ types of its result and operands, an expression, and its class."""

    result: str
    operands: tuple[str, ...]
    expression: str
    kind: str


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    pattern: str
    result: str
    operands: str
    expression: str
    kind: str = ALU


def _float_row(operation: str, operands: int, expression: str, kind: str = "") -> Row:
    """A row of float32 and float64 arithmetic with a rounding mode, `.ftz` and `.sat`."""
    values = ", ".join("abc"[:operands])
    return Row(
        rf"{operation}{_ROUND}{_FTZ}{_SAT}\.(?P<T>f32|f64)",
        "{T}",
        " ".join(["{T}"] * operands),
        f"rounded<{{T}}>(Round::{{round}}, {{ftz}}, {{sat}}, [](auto... v) {{{{ return {expression}; }}}}, {values})",
        kind,
    )


_HALVES = r"\.(?P<T>[us]16)x2"

TABLE = [
    # Integers
    Row(rf"add\.{_INT}", "{T}", "{T} {T}", "wrap(a) + wrap(b)"),
    Row(rf"sub\.{_INT}", "{T}", "{T} {T}", "wrap(a) - wrap(b)"),
    Row(rf"mul\.lo\.{_INT}", "{T}", "{T} {T}", "wrap(a) * wrap(b)"),
    Row(rf"mul\.hi\.{_INT}", "{T}", "{T} {T}", "multiply_high(a, b)"),
    Row(r"mul\.wide\.(?P<T>[us](?:16|32))", "twice<{T}>", "{T} {T}", "wide(a) * wide(b)"),
    Row(rf"mad\.lo\.{_INT}", "{T}", "{T} {T} {T}", "wrap(a) * wrap(b) + wrap(c)"),
    Row(rf"mad\.hi\.{_INT}", "{T}", "{T} {T} {T}", "wrap(multiply_high(a, b)) + wrap(c)"),
    Row(r"mad\.wide\.(?P<T>[us](?:16|32))", "twice<{T}>", "{T} {T} twice<{T}>", "wrap(wide(a) * wide(b)) + wrap(c)"),
    Row(r"add\.sat\.s32", "s32", "s32 s32", "saturated<s32>(s64(a) + b)"),
    Row(r"sub\.sat\.s32", "s32", "s32 s32", "saturated<s32>(s64(a) - b)"),
    Row(r"mul24\.lo\.(?P<T>[us]32)", "{T}", "{T} {T}", "wrap(low24(a)) * wrap(low24(b))"),
    Row(r"mad24\.lo\.(?P<T>[us]32)", "{T}", "{T} {T} {T}", "wrap(low24(a)) * wrap(low24(b)) + wrap(c)"),
    Row(rf"div\.{_INT}", "{T}", "{T} {T}", "quotient(a, b)", SLOW),
    Row(rf"rem\.{_INT}", "{T}", "{T} {T}", "remainder(a, b)", SLOW),
    Row(r"abs\.(?P<T>s(?:16|32|64))", "{T}", "{T}", "a < 0 ? -wrap(a) : wrap(a)"),
    Row(r"neg\.(?P<T>s(?:16|32|64))", "{T}", "{T}", "-wrap(a)"),
    Row(rf"min\.{_INT}", "{T}", "{T} {T}", "a < b ? a : b"),
    Row(rf"max\.{_INT}", "{T}", "{T} {T}", "a > b ? a : b"),
    Row(r"min\.relu\.s32", "s32", "s32 s32", "std::max(0, std::min(a, b))"),
    Row(r"max\.relu\.s32", "s32", "s32 s32", "std::max(0, std::max(a, b))"),
    Row(
        r"sad\.(?P<T>[us](?:16|32|64))",
        "{T}",
        "{T} {T} {T}",
        "wrap(c) + (a < b ? wrap(b) - wrap(a) : wrap(a) - wrap(b))",
    ),
    Row(rf"add{_HALVES}", "u32", "u32 u32", "halves<{T}>([](auto x, auto y) {{ return x + y; }}, a, b)"),
    Row(rf"min{_HALVES}", "u32", "u32 u32", "halves<{T}>([](auto x, auto y) {{ return x < y ? x : y; }}, a, b)"),
    Row(rf"max{_HALVES}", "u32", "u32 u32", "halves<{T}>([](auto x, auto y) {{ return x > y ? x : y; }}, a, b)"),
    Row(r"dp4a\.(?P<A>[us])32\.(?P<B>[us])32", "u32", "u32 u32 u32", "dot4<{A}8, {B}8>(a, b, c)"),
    Row(r"dp2a\.lo\.(?P<A>[us])32\.(?P<B>[us])32", "u32", "u32 u32 u32", "dot2<{A}16, {B}8>(a, b, c)"),
    Row(r"dp2a\.hi\.(?P<A>[us])32\.(?P<B>[us])32", "u32", "u32 u32 u32", "dot2<{A}16, {B}8>(a, b >> 16, c)"),
    # Bits
    Row(r"and\.(?P<T>b16|b32|b64|pred)", "{T}", "{T} {T}", "a & b"),
    Row(r"or\.(?P<T>b16|b32|b64|pred)", "{T}", "{T} {T}", "a | b"),
    Row(r"xor\.(?P<T>b16|b32|b64|pred)", "{T}", "{T} {T}", "a ^ b"),
    Row(r"not\.(?P<T>b16|b32|b64)", "{T}", "{T}", "~a"),
    Row(r"not\.pred", "pred", "pred", "!a"),
    Row(r"cnot\.(?P<T>b16|b32|b64)", "{T}", "{T}", "a == 0"),
    Row(r"shl\.(?P<T>b16|b32|b64)", "{T}", "{T} u32", "shift_left(a, b)"),
    Row(rf"shr\.{_BITS}", "{T}", "{T} u32", "shift_right(a, b)"),
    Row(r"shf\.l\.wrap\.b32", "u32", "u32 u32 u32", "u32((u64(b) << 32 | a) << (c & 31) >> 32)"),
    Row(r"shf\.r\.wrap\.b32", "u32", "u32 u32 u32", "u32((u64(b) << 32 | a) >> (c & 31))"),
    Row(r"shf\.l\.clamp\.b32", "u32", "u32 u32 u32", "u32((u64(b) << 32 | a) << std::min(c, 32u) >> 32)"),
    Row(r"shf\.r\.clamp\.b32", "u32", "u32 u32 u32", "u32((u64(b) << 32 | a) >> std::min(c, 32u))"),
    Row(r"lop3\.b32", "u32", "u32 u32 u32 u32", "any_logic(a, b, c, e)"),
    Row(r"prmt\.b32(?P<mode>\.\w+)?", "u32", "u32 u32 u32", "permuted(a, b, c, Permute::{mode})"),
    Row(r"popc\.b(?P<N>32|64)", "u32", "u{N}", "__builtin_popcountll(a)"),
    Row(r"clz\.b(?P<N>32|64)", "u32", "u{N}", "leading_zeros(a)"),
    Row(r"bfind\.(?P<T>[us](?:32|64))", "u32", "{T}", "highest_bit(a)"),
    Row(r"brev\.b(?P<N>32|64)", "u{N}", "u{N}", "reversed(a)"),
    Row(r"bfe\.(?P<T>[us](?:32|64))", "{T}", "{T} u32 u32", "extracted(a, b, c)"),
    Row(r"bfi\.b(?P<N>32|64)", "u{N}", "u{N} u{N} u32 u32", "inserted(a, b, c, e)"),
    # Choices
    Row(r"selp\.(?P<T>[usbf](?:16|32|64))", "bits<{T}>", "bits<{T}> bits<{T}> pred", "c ? a : b"),
    Row(r"slct\.(?P<T>[usbf](?:16|32|64))\.s32", "bits<{T}>", "bits<{T}> bits<{T}> s32", "c >= 0 ? a : b"),
    Row(rf"setp\.(?P<compare>[a-z]+){_FTZ}\.(?P<T>[usbf](?:16|32|64))", "pred", "{T} {T}", "{compare}({ftz}, a, b)"),
    Row(
        rf"setp\.(?P<compare>[a-z]+)\.(?P<join>and|or|xor){_FTZ}\.(?P<T>[usbf](?:16|32|64))",
        "pred",
        "{T} {T} pred",
        "{compare}({ftz}, a, b) {join} c",
    ),
    Row(
        rf"setp_not\.(?P<compare>[a-z]+)\.(?P<join>and|or|xor){_FTZ}\.(?P<T>[usbf](?:16|32|64))",
        "pred",
        "{T} {T} pred",
        "!{compare}({ftz}, a, b) {join} c",
    ),
    Row(
        rf"setp_not\.(?P<compare>[a-z]+){_FTZ}\.(?P<T>[usbf](?:16|32|64))", "pred", "{T} {T}", "!{compare}({ftz}, a, b)"
    ),
    Row(
        rf"set\.(?P<compare>[a-z]+){_FTZ}\.[us]32\.(?P<T>[usbf](?:16|32|64))",
        "u32",
        "{T} {T}",
        "{compare}({ftz}, a, b) ? ~0u : 0u",
    ),
    Row(
        rf"set\.(?P<compare>[a-z]+){_FTZ}\.f32\.(?P<T>[usbf](?:16|32|64))",
        "f32",
        "{T} {T}",
        "{compare}({ftz}, a, b) ? 1.0f : 0.0f",
    ),
    # Floats
    _float_row("add", 2, "(v + ...)"),
    _float_row("sub", 2, "(v - ...)"),
    _float_row("mul", 2, "(v * ...)"),
    _float_row("fma", 3, "fused(v...)"),
    _float_row("mad", 3, "fused(v...)"),
    _float_row("div", 2, "(v / ...)", SLOW),
    _float_row("rcp", 1, "reciprocal(v...)", SLOW),
    _float_row("sqrt", 1, "root(v...)", SLOW),
    Row(rf"neg{_FTZ}\.(?P<T>f32|f64)", "{T}", "{T}", "-flushed({ftz}, a)", ""),
    Row(rf"abs{_FTZ}\.(?P<T>f32|f64)", "{T}", "{T}", "std::fabs(flushed({ftz}, a))", ""),
    Row(rf"min{_FTZ}(?P<nan>\.NaN)?\.(?P<T>f32|f64)", "{T}", "{T} {T}", "lesser({ftz}, {nan}, a, b)", ""),
    Row(rf"max{_FTZ}(?P<nan>\.NaN)?\.(?P<T>f32|f64)", "{T}", "{T} {T}", "greater({ftz}, {nan}, a, b)", ""),
    Row(r"copysign\.(?P<T>f32|f64)", "{T}", "{T} {T}", "std::copysign(b, a)", ""),
    Row(r"testp\.(?P<what>\w+)\.(?P<T>f32|f64)", "pred", "{T}", "is_{what}(a)", ""),
    # Approximations: the hardware's last bits are not known here. See `is_approximate`.
    Row(rf"ex2\.approx{_FTZ}\.f32", "f32", "f32", "approximate({ftz}, [](f64 v) {{ return std::exp2(v); }}, a)", SLOW),
    Row(rf"lg2\.approx{_FTZ}\.f32", "f32", "f32", "approximate({ftz}, [](f64 v) {{ return std::log2(v); }}, a)", SLOW),
    Row(rf"sin\.approx{_FTZ}\.f32", "f32", "f32", "approximate({ftz}, [](f64 v) {{ return std::sin(v); }}, a)", SLOW),
    Row(rf"cos\.approx{_FTZ}\.f32", "f32", "f32", "approximate({ftz}, [](f64 v) {{ return std::cos(v); }}, a)", SLOW),
    Row(
        r"tanh\.approx(?P<ftz>)\.f32", "f32", "f32", "approximate(false, [](f64 v) {{ return std::tanh(v); }}, a)", SLOW
    ),
    Row(rf"rcp\.approx{_FTZ}\.f32", "f32", "f32", "approximate({ftz}, [](f64 v) {{ return 1 / v; }}, a)", SLOW),
    Row(rf"sqrt\.approx{_FTZ}\.f32", "f32", "f32", "approximate({ftz}, [](f64 v) {{ return std::sqrt(v); }}, a)", SLOW),
    Row(
        rf"rsqrt\.approx{_FTZ}\.f32",
        "f32",
        "f32",
        "approximate({ftz}, [](f64 v) {{ return 1 / std::sqrt(v); }}, a)",
        SLOW,
    ),
    Row(r"(?:rcp|rsqrt)\.approx\.ftz\.f64", "f64", "f64", "unknown_bits()", SLOW),
    Row(
        rf"div\.(?:approx|full){_FTZ}\.f32",
        "f32",
        "f32 f32",
        "flushed({ftz}, flushed({ftz}, a) / flushed({ftz}, b))",
        SLOW,
    ),
    # Conversions
    Row(r"cvt(?P<sat>\.sat)?\.(?P<D>[us]\d+)\.(?P<S>[us]\d+)", "{D}", "{S}", "resized<{D}>({sat}, a)", ALU),
    Row(
        rf"cvt\.(?P<round>r[nzmp]i){_FTZ}{_SAT}\.(?P<D>[us]\d+)\.(?P<S>f\d+)",
        "{D}",
        "{S}",
        "to_integer<{D}>(Round::{round}, flushed({ftz}, as_float<{S}>(a)))",
        CONVERSION,
    ),
    Row(
        rf"cvt\.(?P<round>r[nzmp]){_SAT}\.(?P<D>f32|f64)\.(?P<S>[us]\d+)",
        "{D}",
        "{S}",
        "from_integer<{D}>(Round::{round}, {sat}, a)",
        CONVERSION,
    ),
    Row(
        rf"cvt\.(?P<round>r[nzmp]i){_FTZ}{_SAT}\.(?P<T>f32|f64)\.(?P=T)",
        "{T}",
        "{T}",
        "clamped({sat}, whole(Round::{round}, flushed({ftz}, a)))",
        CONVERSION,
    ),
    Row(rf"cvt{_FTZ}{_SAT}\.(?P<T>f32|f64)\.(?P=T)", "{T}", "{T}", "clamped({sat}, flushed({ftz}, a))", MOVE),
    Row(rf"cvt{_FTZ}{_SAT}\.f64\.f32", "f64", "f32", "clamped({sat}, f64(flushed({ftz}, a)))", CONVERSION),
    Row(
        rf"cvt\.(?P<round>r[nzmp]){_FTZ}{_SAT}\.f32\.f64",
        "f32",
        "f64",
        "clamped({sat}, flushed({ftz}, to_float32(Round::{round}, a)))",
        CONVERSION,
    ),
    Row(
        r"cvt(?P<ftz>\.ftz)?\.(?P<D>f32|f64)\.(?P<S>f16|bf16)",
        "{D}",
        "{S}",
        "flushed({ftz}, {D}(as_float<{S}>(a)))",
        CONVERSION,
    ),
    Row(
        r"cvt\.(?P<round>r[nz])(?P<relu>\.relu)?\.(?P<D>f16|bf16)\.(?P<S>f32|f64)",
        "{D}",
        "{S}",
        "to_half<{D}>(Round::{round}, {relu}, a)",
        CONVERSION,
    ),
    Row(
        r"cvt\.(?P<round>r[nz])(?P<relu>\.relu)?\.(?P<D>f16|bf16)x2\.f32",
        "u32",
        "f32 f32",
        "u32(to_half<{D}>(Round::{round}, {relu}, a)) << 16 | to_half<{D}>(Round::{round}, {relu}, b)",
        CONVERSION,
    ),
    Row(
        r"cvt\.rn\.(?P<D>f16|bf16)\.(?P<S>[us]\d+)", "{D}", "{S}", "to_half<{D}>(Round::rn, false, f64(a))", CONVERSION
    ),
    Row(
        r"cvt\.pack\.sat\.(?P<D>[us]8)\.s32\.b32",
        "u32",
        "s32 s32 u32",
        "c << 16 | u32(u8(saturated<{D}>(a))) << 8 | u8(saturated<{D}>(b))",
    ),
    Row(
        r"cvt\.pack\.sat\.(?P<D>[us]16)\.s32",
        "u32",
        "s32 s32",
        "u32(u16(saturated<{D}>(a))) << 16 | u16(saturated<{D}>(b))",
    ),
    # Moves
    Row(r"mov\.(?P<T>pred)", "{T}", "{T}", "a", MOVE),
    Row(r"mov\.(?P<T>[usbf](?:16|32|64))", "bits<{T}>", "bits<{T}>", "a", MOVE),
    Row(r"pack2\.b(?P<N>16|32|64)", "u{N}", "half_of<u{N}> half_of<u{N}>", "u{N}(b) << ({N} / 2) | a", MOVE),
    Row(
        r"pack4\.b(?P<N>32|64)",
        "u{N}",
        " ".join(["quarter_of<u{N}>"] * 4),
        "u{N}(e) << (3 * {N} / 4) | u{N}(c) << ({N} / 2) | u{N}(b) << ({N} / 4) | a",
        MOVE,
    ),
    Row(r"part2\.b(?P<N>16|32|64)", "half_of<u{N}>", "u{N} u32", "a >> (b * {N} / 2)", MOVE),
    Row(r"part4\.b(?P<N>32|64)", "quarter_of<u{N}>", "u{N} u32", "a >> (b * {N} / 4)", MOVE),
]

_FLAGS = ("ftz", "sat", "relu", "nan")
_JOINS = {"and": "&&", "or": "||", "xor": "^"}
_PERMUTE_DEFAULT = "bytes"


def is_approximate(mnemonic: str) -> bool:
    """Whether the last bits of an instruction's result are the hardware's secret: results cannot be held to the bit."""
    return ".approx" in mnemonic or mnemonic.startswith("div.full")


@cache
def meaning(mnemonic: str) -> Meaning:
    """Return what an instruction computes.

    Raises:
        UnknownPtxError: The table has no row for it.
    """
    for row in TABLE:
        found = re.fullmatch(row.pattern, mnemonic)
        if found:
            return _filled(row, found.groupdict())
    raise UnknownPtxError(f"the instruction {mnemonic} is not in the table of instructions (tests/ptx/table.py)")


def _filled(row: Row, groups: dict[str, str | None]) -> Meaning:
    values: dict[str, str] = {name: value or "" for name, value in groups.items()}
    for name in _FLAGS:
        if name in values:
            values[name] = "true" if values[name] else "false"
    if "round" in values:
        values["round"] = values["round"] or "rn"
    if "join" in values:
        values["join"] = _JOINS[values["join"]]
    if "mode" in values:
        values["mode"] = values["mode"].removeprefix(".") or _PERMUTE_DEFAULT
    values["compare"] = f"compare_{values.get('compare')}"
    for name in "TDS":
        values[name] = _c_type(values[name]) if values.get(name) else ""
    kind = row.kind or (FLOAT64 if values["T"] == "f64" else FLOAT32)
    operands = tuple(operand.format(**values) for operand in row.operands.split())
    return Meaning(row.result.format(**values), operands, row.expression.format(**values), kind)


def _c_type(name: str) -> str:
    return "u" + name[1:] if re.fullmatch(r"b\d+", name) else name


def size_of(c_type: str) -> int:
    """Return the bytes of a type of the table, such as `u32`, `twice<s16>` or `bits<f64>`; of a predicate 0."""
    outer, inner = re.fullmatch(r"(?:(\w+)<)?(\w+)>?", c_type).groups()
    bits = 0 if inner == "pred" else int(re.sub(r"\D", "", inner))
    factor = {"twice": 2, "half_of": 0.5, "quarter_of": 0.25}.get(outer, 1)
    return int(bits * factor) // 8


def is_signed(c_type: str) -> bool:
    """Whether a result of this type fills a wider register with its sign."""
    return bool(re.fullmatch(r"(twice<)?s\d+>?", c_type))

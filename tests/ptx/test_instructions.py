"""Single instructions against Python's integers, exact fractions and numpy; and what is not known is an error."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from tests.helpers.tiers import slow
from tests.ptx.parsing import UnknownPtxError
from tests.ptx.running import Kernel
from tests.ptx.single import DTYPES, INTEGERS, assert_bits, compute, floats, integers, kernel_text, rounded, wrapped
from tests.ptx.table import is_approximate

# Compiled here; tests of kernels use them.
OTHERS = [
    *("mad.hi.s32", "mad.wide.u16", "add.sat.s32", "sub.sat.s32", "mul24.lo.u32", "mad24.lo.s32", "abs.s64", "neg.s16"),
    *("min.relu.s32", "max.relu.s32", "sad.u32", "add.u16x2", "min.s16x2", "max.u16x2", "not.pred", "cnot.b32"),
    *("selp.f64", "slct.f32.s32", "setp.lt.and.s32", "setp_not.lt.or.f32", "setp_not.eq.u64", "set.lt.f32.f32"),
    *("neg.f64", "abs.ftz.f32", "copysign.f32", "testp.infinite.f64", "ex2.approx.ftz.f32", "lg2.approx.f32"),
    *(
        "sin.approx.f32",
        "cos.approx.f32",
        "tanh.approx.f32",
        "rcp.approx.ftz.f32",
        "sqrt.approx.f32",
        "rsqrt.approx.f32",
    ),
    *("rcp.approx.ftz.f64", "div.full.f32", "cvt.f32.f32", "cvt.f64.f32", "cvt.rn.bf16x2.f32", "cvt.rn.f16.s32"),
    *("cvt.pack.sat.u8.s32.b32", "cvt.pack.sat.s16.s32", "pack4.b32", "part4.b64", "pack2.b64", "part2.b32"),
]


@pytest.fixture(scope="module", autouse=True)
def _compiled_at_once(ptx_builder):
    """What these tests compute, in one run of g++ instead of one for each instruction."""
    shifts = [f"{name}{bits}" for name in ("shl.b", "shr.u", "shr.s") for bits in (16, 32, 64)]
    counts = [f"{name}{bits}" for name in ("popc.b", "clz.b", "bfind.u", "brev.b") for bits in (32, 64)]
    fields = ["bfe.u32", "bfe.s32", "bfi.b32", "lop3.b32", "prmt.b32", "dp2a.hi.u32.u32"]
    fields += [f"dp4a.{kinds}" for kinds in ("u32.u32", "s32.s32", "u32.s32")]
    fields += [f"shf.{side}.{mode}.b32" for side in "lr" for mode in ("wrap", "clamp")]
    sums = [f"{name}.rn.{kind}" for name in ("add", "sub", "mul", "div", "sqrt", "rcp") for kind in ("f32", "f64")]
    sums += [f"{name}.{kind}" for name in ("min", "max") for kind in ("f32", "f64")]
    sums += ["mul.rn.ftz.f32", "mul.rn.sat.f32"]
    used = ["mov.u32", "mov.u64", "mad.lo.s32", "mad.wide.u32", "setp.ge.u32"]
    ptx_builder.handlers([*shifts, *counts, *fields, *sums, *used, *OTHERS])


def quotient(a: int, b: int) -> int:
    return 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


WHOLE: dict[str, tuple[int, Callable[..., int]]] = {
    "add": (2, lambda a, b: a + b),
    "sub": (2, lambda a, b: a - b),
    "mul.lo": (2, lambda a, b: a * b),
    "min": (2, min),
    "max": (2, max),
    "mad.lo": (3, lambda a, b, c: a * b + c),
}


@pytest.mark.parametrize("name", WHOLE)
def test_integer_arithmetic_wraps(ptx_builder, name):
    operands, truth = WHOLE[name]
    kinds = INTEGERS if operands == 2 else ("u16", "s32", "u64")
    ptx_builder.handlers(f"{other}.{kind}" for other in WHOLE for kind in kinds)
    for kind in kinds:
        given = integers(kind, operands)
        made = compute(ptx_builder, f"{name}.{kind}", [kind] * (operands + 1), *given)
        expected = wrapped([truth(*map(int, row)) for row in zip(*given, strict=True)], kind)
        np.testing.assert_array_equal(made, expected, err_msg=kind)


def test_high_and_wide_products_and_quotients(ptx_builder):
    ptx_builder.handlers(f"{name}.{kind}" for name in ("mul.hi", "div", "rem") for kind in INTEGERS)
    for kind in INTEGERS:
        a, b = integers(kind, 2)
        pairs = [(int(x), int(y)) for x, y in zip(a, b, strict=True)]
        bits = 8 * a.itemsize
        high = compute(ptx_builder, f"mul.hi.{kind}", [kind] * 3, a, b)
        np.testing.assert_array_equal(high, wrapped([x * y >> bits for x, y in pairs], kind))
        if bits < 64:
            twice = f"{kind[0]}{2 * bits}"
            made = compute(ptx_builder, f"mul.wide.{kind}", [twice, kind, kind], a, b)
            np.testing.assert_array_equal(made, wrapped([x * y for x, y in pairs], twice))
        valid = b != 0
        for name, truth in (("div", quotient), ("rem", lambda x, y: x - quotient(x, y) * y)):
            made = compute(ptx_builder, f"{name}.{kind}", [kind] * 3, a, b)[valid]
            np.testing.assert_array_equal(made, wrapped([truth(x, y) for x, y in pairs if y], kind), err_msg=name)


def test_bits_shifts_and_fields(ptx_builder):
    for bits in (16, 32, 64):
        kind, signed = f"u{bits}", f"s{bits}"
        a, counts = integers(kind, 2)
        counts = (counts % 100).astype(np.uint32)
        pairs = [(int(x), int(n)) for x, n in zip(a, counts, strict=True)]
        made = compute(ptx_builder, f"shl.b{bits}", [kind, kind, "u32"], a, counts)
        np.testing.assert_array_equal(made, wrapped([x << n for x, n in pairs], kind))
        made = compute(ptx_builder, f"shr.u{bits}", [kind, kind, "u32"], a, counts)
        np.testing.assert_array_equal(made, wrapped([x >> n for x, n in pairs], kind))
        made = compute(ptx_builder, f"shr.s{bits}", [signed, signed, "u32"], a.view(f"i{bits // 8}"), counts)
        np.testing.assert_array_equal(made, a.view(f"i{bits // 8}").astype(object) >> counts.astype(object))
    for bits in (32, 64):
        (a,) = integers(f"u{bits}", 1)
        words = [int(x) for x in a]
        for name, truth in (
            (f"popc.b{bits}", lambda x: x.bit_count()),
            (f"clz.b{bits}", lambda x, bits=bits: bits - x.bit_length()),
            (f"bfind.u{bits}", lambda x: (x.bit_length() - 1) % 2**32),
        ):
            made = compute(ptx_builder, name, ["u32", f"u{bits}"], a)
            np.testing.assert_array_equal(made, [truth(x) for x in words], err_msg=name)
        made = compute(ptx_builder, f"brev.b{bits}", [f"u{bits}"] * 2, a)
        np.testing.assert_array_equal(made, [int(f"{x:0{bits}b}"[::-1], 2) for x in words])


def test_fields_of_bits(ptx_builder):
    words, positions, lengths = (
        grid.ravel().astype(np.uint32)
        for grid in np.meshgrid([0, 0xDEADBEEF, 0x80000001], [0, 3, 31, 40], [0, 1, 9, 32])
    )
    cases = [(int(w), int(p), int(n)) for w, p, n in zip(words, positions, lengths, strict=True)]
    unsigned = compute(ptx_builder, "bfe.u32", ["u32"] * 4, words, positions, lengths)
    np.testing.assert_array_equal(unsigned, [(w >> p) % 2**n for w, p, n in cases])
    signed = compute(ptx_builder, "bfe.s32", ["s32", "s32", "u32", "u32"], words.view(np.int32), positions, lengths)
    np.testing.assert_array_equal(signed, [_signed_field(w, p, n) for w, p, n in cases])
    made = compute(ptx_builder, "bfi.b32", ["u32"] * 5, words, words ^ np.uint32(0xFFFFFFFF), positions, lengths)
    masks = [((2**n - 1) << p) % 2**32 for _, p, n in cases]
    expected = [(w << p & m) | (~w & 0xFFFFFFFF & ~m) for (w, p, _), m in zip(cases, masks, strict=True)]
    np.testing.assert_array_equal(made, expected)


def _signed_field(word: int, position: int, length: int) -> int:
    """The manual's: bits beyond the word are its last bit, which is the sign."""
    sign = word >> min(position + length - 1, 31) & 1 if length else 0
    bits = [word >> (position + i) & 1 if i < length and position + i <= 31 else sign for i in range(32)]
    value = sum(bit << i for i, bit in enumerate(bits))
    return value - 2**32 if value >= 2**31 else value


def test_packed_bytes(ptx_builder):
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(0, 2**32, 500, np.uint32) for _ in range(3))
    parts = [x.view(np.uint8).reshape(-1, 4).astype(np.int64) for x in (a, b)]
    signed = [x.view(np.int8).reshape(-1, 4).astype(np.int64) for x in (a, b)]
    for name, (x, y) in {"u32.u32": parts, "s32.s32": signed, "u32.s32": (parts[0], signed[1])}.items():
        made = compute(ptx_builder, f"dp4a.{name}", ["u32"] * 4, a, b, c)
        np.testing.assert_array_equal(made, (((x * y).sum(1) + c) % 2**32).astype(np.uint32), err_msg=name)
    halves = a.view(np.uint16).reshape(-1, 2).astype(np.int64)
    made = compute(ptx_builder, "dp2a.hi.u32.u32", ["u32"] * 4, a, b, c)
    np.testing.assert_array_equal(made, (((halves * parts[1][:, 2:]).sum(1) + c) % 2**32).astype(np.uint32))
    both = np.concatenate([a.view(np.uint8).reshape(-1, 4), b.view(np.uint8).reshape(-1, 4)], 1)
    selectors = np.stack([c >> np.uint32(4 * i) & np.uint32(15) for i in range(4)], 1)
    chosen = np.take_along_axis(both, selectors & 7, 1)
    chosen = np.where(selectors & 8, np.where(chosen & 0x80, 0xFF, 0), chosen).astype(np.uint8)
    made = compute(ptx_builder, "prmt.b32", ["u32"] * 4, a, b, c)
    np.testing.assert_array_equal(made, np.ascontiguousarray(chosen).view(np.uint32).ravel())
    wide = [int(y) << 32 | int(x) for x, y in zip(a, b, strict=True)]
    for name, truth in (
        ("shf.l.wrap", lambda w, n: w << (n & 31) >> 32),
        ("shf.r.wrap", lambda w, n: w >> (n & 31)),
        ("shf.r.clamp", lambda w, n: w >> min(n, 32)),
        ("shf.l.clamp", lambda w, n: w << min(n, 32) >> 32),
    ):
        made = compute(ptx_builder, f"{name}.b32", ["u32"] * 4, a, b, c % 50)
        expected = [truth(w, int(n) % 50) % 2**32 for w, n in zip(wide, c, strict=True)]
        np.testing.assert_array_equal(made, expected, err_msg=name)


def test_every_logic_of_three(ptx_builder):
    rng = np.random.default_rng(1)
    a, b, c = (rng.integers(0, 2**32, 256, np.uint32) for _ in range(3))
    tables = np.arange(256, dtype=np.uint32)
    made = compute(ptx_builder, "lop3.b32", ["u32"] * 5, a, b, c, tables)
    expected = np.zeros(256, np.uint32)
    for bit in range(32):
        row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1)
        expected |= (tables >> row & 1) << bit
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_float_arithmetic_rounds_to_nearest(ptx_builder, kind):
    a, b = floats(kind, 2)
    with np.errstate(all="ignore"):
        truths = {"add": a + b, "sub": a - b, "mul": a * b, "div": a / b}
        truths |= {"min": np.fmin(a, b), "max": np.fmax(a, b)}
        for name, expected in truths.items():
            mnemonic = f"{name}{'' if name in ('min', 'max') else '.rn'}.{kind}"
            made = compute(ptx_builder, mnemonic, [kind] * 3, a, b)
            zeros = (made == 0) & (expected == 0) & (name in ("min", "max"))  # numpy keeps either zero
            assert_bits(np.where(zeros, 0, made), np.where(zeros, 0, expected))
        assert_bits(compute(ptx_builder, f"sqrt.rn.{kind}", [kind] * 2, a), np.sqrt(a))
        assert_bits(compute(ptx_builder, f"rcp.rn.{kind}", [kind] * 2, a), (1 / a).astype(a.dtype))
    made = compute(ptx_builder, f"min.{kind}", [kind] * 3, *np.array([[0.0, -0.0], [-0.0, 0.0]], a.dtype))
    assert np.signbit(made).all(), "minus zero is less than zero"


@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_fused_and_directed_rounding_are_exact(ptx_builder, kind):
    dtype = DTYPES[kind]
    modes = ("rn", "rz", "rm", "rp")
    ptx_builder.handlers(f"{name}.{mode}.{kind}" for name in ("fma", "add", "mul", "div") for mode in modes)
    rng = np.random.default_rng(2)
    a, b, c = ((rng.standard_normal(200) * 2.0 ** rng.integers(-9, 9, 200)).astype(dtype) for _ in range(3))
    c[:50] = -(a[:50] * b[:50])  # what is left is what a product's rounding loses
    for mode in modes:
        exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
        made = compute(ptx_builder, f"fma.{mode}.{kind}", [kind] * 4, a, b, c)
        assert_bits(np.abs(made), np.abs(np.array([rounded(value, dtype, mode) for value in exact])))
        assert_bits(made[made != 0], np.array([rounded(v, dtype, mode) for v in exact])[made != 0])
        for name, truth in (("add", Fraction.__add__), ("mul", Fraction.__mul__), ("div", Fraction.__truediv__)):
            exact = [truth(Fraction(float(x)), Fraction(float(y))) for x, y in zip(a, b, strict=True)]
            made = compute(ptx_builder, f"{name}.{mode}.{kind}", [kind] * 3, a, b)
            assert_bits(made, np.array([rounded(value, dtype, mode) for value in exact]))


def test_ftz_and_saturation(ptx_builder):
    a = np.array([1e-40, -1e-40, 1.5, -2.0, 0.25, np.nan, 1e-38], np.float32)
    one = np.ones_like(a)
    made = compute(ptx_builder, "mul.rn.ftz.f32", ["f32"] * 3, a, one)
    assert_bits(made, np.array([0.0, -0.0, 1.5, -2.0, 0.25, np.nan, 0.0], np.float32))
    made = compute(ptx_builder, "mul.rn.sat.f32", ["f32"] * 3, a, one)
    assert_bits(made, np.array([1e-40, 0.0, 1.0, 0.0, 0.25, 0.0, 1e-38], np.float32))
    assert_bits(compute(ptx_builder, "mul.rn.f32", ["f32"] * 3, a, one), a)  # subnormal numbers stay


@pytest.mark.parametrize("kinds", [("s32", "u64", "f32"), *slow((*INTEGERS, "f32", "f64"))], ids=["some", "all"])
def test_comparisons(ptx_builder, kinds):
    orders = {
        "eq": np.equal,
        "ne": np.not_equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
    }
    unordered_too = [f"set.{name}u.u32.{kind}" for name in orders for kind in kinds if kind[0] == "f"]
    ptx_builder.handlers([*unordered_too, *(f"set.{name}.u32.{kind}" for name in orders for kind in kinds)])
    for kind in kinds:
        a, b = floats(kind, 2) if kind[0] == "f" else integers(kind, 2)
        unordered = np.isnan(a) | np.isnan(b) if kind[0] == "f" else np.zeros(len(a), bool)
        for name, order in orders.items():
            made = compute(ptx_builder, f"set.{name}.u32.{kind}", ["u32", kind, kind], a, b)
            np.testing.assert_array_equal(made != 0, order(a, b) & ~unordered, err_msg=f"{name} {kind}")
            if kind[0] == "f":
                made = compute(ptx_builder, f"set.{name}u.u32.{kind}", ["u32", kind, kind], a, b)
                np.testing.assert_array_equal(made != 0, order(a, b) | unordered, err_msg=f"{name}u {kind}")


def test_what_is_not_known_is_an_error_that_names_it(ptx_builder):
    with pytest.raises(UnknownPtxError, match=r"line 23: frobnicate\.u32 .*frobnicate\.u32 is not in the table"):
        compute(ptx_builder, "frobnicate.u32", ["u32", "u32"], np.zeros(1, np.uint32))
    with pytest.raises(UnknownPtxError, match=r"ld\.global\.mystery\.u32 is not known"):
        Kernel(kernel_text(["ld.global.mystery.u32 %r1, [%rd1];"], 1), ptx_builder)
    with pytest.raises(UnknownPtxError, match="nobody"):
        Kernel(kernel_text(["mov.u64 %rd1, nobody;"], 1), ptx_builder)


def test_approximations_are_told_apart():
    assert is_approximate("ex2.approx.ftz.f32")
    assert is_approximate("div.full.f32")
    assert not is_approximate("div.rn.f32")


def test_the_other_instructions_compile(ptx_builder):
    handlers = ptx_builder.handlers(OTHERS)
    assert all(handlers[mnemonic] for mnemonic in OTHERS)

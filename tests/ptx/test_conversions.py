"""Conversions between integers and floats of all widths, against exact fractions, numpy and PyTorch."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from tests.helpers.tiers import slow
from tests.ptx.single import DTYPES, FLOATS, SOURCES, assert_bits, compute, floats, integers, rounded


@pytest.mark.parametrize("targets", [("u8", "s32", "s64"), *slow(SOURCES)], ids=["some", "all"])
@pytest.mark.parametrize("source", ["f32", "f64"])
def test_floats_to_integers(ptx_builder, source, targets):
    with np.errstate(over="ignore"):
        given = np.array([*FLOATS, -0.5, -1.5, 2**31 - 0.5, 127.5, 300.0, -129.0]).astype(DTYPES[source])
    modes = {"rni": lambda x: round(Fraction(x)), "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}
    cases = list(itertools.product(targets, modes))
    ptx_builder.handlers(f"cvt.{mode}.{target}.{source}" for target, mode in cases)
    for target, mode in cases:
        info = np.iinfo(DTYPES[target])
        made = compute(ptx_builder, f"cvt.{mode}.{target}.{source}", [target, source], given)
        is_wide = source == "f64" or target.endswith("64")
        nan = (1 << info.bits - 1 if info.min == 0 else info.min) if is_wide else 0
        expected = []
        for value in map(float, given):
            whole = (
                nan
                if math.isnan(value)
                else info.max
                if value == math.inf
                else info.min
                if value == -math.inf
                else None
            )
            expected.append(min(max(modes[mode](value), info.min), info.max) if whole is None else whole)
        np.testing.assert_array_equal(made, np.array(expected, DTYPES[target]), err_msg=f"{target} {mode}")


@pytest.mark.parametrize("sources", [("u8", "s32", "u64"), *slow(SOURCES)], ids=["some", "all"])
def test_integers_to_floats(ptx_builder, sources):
    cases = list(itertools.product(("rn", "rz", "rm", "rp"), ("f32", "f64"), sources))
    ptx_builder.handlers(f"cvt.{mode}.{target}.{source}" for mode, target, source in cases)
    for mode, target, source in cases:
        (given,) = integers(source, 1)
        made = compute(ptx_builder, f"cvt.{mode}.{target}.{source}", [target, source], given)
        expected = [rounded(Fraction(int(value)), DTYPES[target], mode) for value in given]
        assert_bits(made, np.array(expected, DTYPES[target]))


def test_floats_to_floats(ptx_builder):
    wholes = [f"cvt.{mode}.f64.f64" for mode in ("rni", "rzi", "rmi", "rpi")]
    ptx_builder.handlers(
        [*wholes, "cvt.rn.f32.f64", "cvt.rn.f16.f32", "cvt.rn.bf16.f32", "cvt.f32.f16", "cvt.f32.bf16"]
    )
    (given,) = floats("f64", 1)
    with np.errstate(all="ignore"):
        singles = given.astype(np.float32)
        assert_bits(compute(ptx_builder, "cvt.rn.f32.f64", ["f32", "f64"], given), singles)
        made = compute(ptx_builder, "cvt.rn.f16.f32", ["f16", "f32"], singles)
        assert_bits(made, singles.astype(np.float16))
    for mode, truth in (("rmi", np.floor), ("rpi", np.ceil), ("rzi", np.trunc), ("rni", np.rint)):
        assert_bits(compute(ptx_builder, f"cvt.{mode}.f64.f64", ["f64", "f64"], given), truth(given))
    halves = np.arange(65536, dtype=np.uint16)
    made = compute(ptx_builder, "cvt.f32.f16", ["f32", "f16"], halves.view(np.float16))
    assert_bits(made, halves.view(np.float16).astype(np.float32))
    made = compute(ptx_builder, "cvt.f32.bf16", ["f32", "bf16"], halves)
    assert_bits(made, (halves.astype(np.uint32) << 16).view(np.float32))


def test_bfloat16_is_rounded_as_pytorch_does(ptx_builder):
    torch = pytest.importorskip("torch")
    words = np.random.default_rng(3).integers(0, 2**32, 20_000, dtype=np.uint32)
    words = np.concatenate([words, (words & 0xFFFF0000) | 0x8000])  # ties
    values = words.view(np.float32)[np.isfinite(words.view(np.float32))]
    made = compute(ptx_builder, "cvt.rn.bf16.f32", ["bf16", "f32"], values)
    np.testing.assert_array_equal(made, torch.from_numpy(values).bfloat16().view(torch.uint16).numpy())


ALL_PAIRS = list(itertools.product(("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"), repeat=2))
PAIRS = [("s32", "u8"), ("u8", "s32"), ("u64", "u32"), ("s16", "s64"), ("u32", "s8"), ("s64", "u16")]


@pytest.mark.parametrize("pairs", [PAIRS, *slow(ALL_PAIRS)], ids=["some", "all"])
def test_integers_are_narrowed_and_widened(ptx_builder, pairs):
    ptx_builder.handlers(f"cvt{how}.{target}.{source}" for source, target in pairs for how in ("", ".sat"))
    for source, target in pairs:
        (given,) = integers(source, 1)
        made = compute(ptx_builder, f"cvt.{target}.{source}", [target, source], given)
        np.testing.assert_array_equal(made, given.astype(DTYPES[target]), err_msg=f"{source} to {target}")
        made = compute(ptx_builder, f"cvt.sat.{target}.{source}", [target, source], given)
        info = np.iinfo(DTYPES[target])
        expected = [min(max(int(value), int(info.min)), int(info.max)) for value in given]
        np.testing.assert_array_equal(
            made, np.array(expected, DTYPES[target]), err_msg=f"{source} to {target}, saturated"
        )

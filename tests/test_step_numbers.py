"""The table of what makes a step faster, and the rule that decides when to compile, are from benchmarks/results."""

import json
import re
from functools import cache
from typing import Any

import pytest

from fastmagn.training import compiled
from tests.helpers.pages import DOCS
from tests.helpers.processes import ROOT

FILES = ("step-variants", "step-variants-other", "step-variants-compiled")
(TABLE,) = re.findall(r"## What makes a step faster\n(.*?)\n## ", (DOCS / "performance.md").read_text(), re.DOTALL)
ROWS = re.findall(r"^\| `(\w+)`[^|]*\| ([\d.]+) \(([\d.]+)\.\.([\d.]+)\) \|", TABLE, re.MULTILINE)


@cache
def variants() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in FILES:
        text = (ROOT / "benchmarks" / "results" / f"{name}-cpu-2cores.json").read_text()
        found = json.loads(text)["variants"] | found
    return found


def test_every_measured_variant_is_in_the_table():
    assert {row[0] for row in ROWS} == variants().keys() - {"as_it_is"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_the_measured_one(row):
    measured = variants()[row[0]]["times_as_it_is"]
    for shown, kind in zip(row[1:], ("median", "lowest", "highest"), strict=True):
        assert abs(float(shown) - measured[kind]) <= 0.5001 * 10 ** -len(shown.partition(".")[2]), kind


def test_the_rule_for_compiling_has_the_measured_times():
    """An eager first step takes hardly longer than the others, so the compiled one's is the time of compiling."""
    eager, made = variants()["as_it_is"], variants()["compiled"]
    pixels = 256 * 4 * 32 * 32
    saved_s = eager["step_s"]["median"] - made["step_s"]["median"]
    assert made["first_step_s"] == pytest.approx(compiled.COLD_COMPILE_S, rel=0.1)
    assert saved_s == pytest.approx(compiled.SAVED_S_PER_PIXEL * pixels, rel=0.1)

"""A policy of one's own from a YAML file.

    interpolation: nearest     # or bilinear
    fill: [0, 0, 0]            # or one number
    bins: 31                   # strengths between the ends of a range
    steps:                     # one after another; each draws one of its operations
      - - {operation: rotate, range: [0, 30], signed: true, probability: 0.8}
        - {operation: color, range: [0.1, 1.9]}
      - - {operation: equalize, probability: 0.5}

With `sub_policies`, a list of such lists of steps, in place of `steps`, one of them is drawn for each image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmagn.augment.policies.definitions import OPERATIONS, Choice, Step, SubPolicy
from fastmagn.augment.policies.table import Policy
from fastmagn.config.plain_yaml import load_plain_yaml
from fastmagn.errors import InputError, check, is_integer, nearest

MAX_BINS, MAX_ITEMS = 256, 64
_POLICY_FIELDS = ("interpolation", "fill", "bins", "steps", "sub_policies")
_OPERATION_FIELDS = ("operation", "range", "signed", "probability")
# The values that an operation of a unit can be given; those with signs are the same to both sides.
_RANGES = {
    "px per px": (-4.0, 4.0),
    "px": (-4096.0, 4096.0),
    "degrees": (-360.0, 360.0),
    "factor": (0.0, 10.0),
    "bits": (1.0, 8.0),
    "threshold": (0.0, 256.0),
}
_WITH_SIGNS = ("px per px", "px", "degrees")


@dataclass(frozen=True)
class OwnPolicy:
    """What a file says, for images of any size."""

    of_all_sizes: tuple[SubPolicy, ...]

    def sub_policies(self, height: int, width: int) -> tuple[SubPolicy, ...]:
        return self.of_all_sizes


def read_policy(path: Path) -> Policy:
    """The policy of a file.

    Raises:
        InputError: It is not plain YAML, or a field is unknown, missing or out of range.
    """
    values = load_plain_yaml(path)
    _check_fields(str(path), values, _POLICY_FIELDS)
    interpolation, bins = values.get("interpolation", "nearest"), values.get("bins", 31)
    check(interpolation in ("nearest", "bilinear"), f"{path}: interpolation", interpolation, "nearest or bilinear")
    check(is_integer(bins) and 1 <= bins <= MAX_BINS, f"{path}: bins", bins, f"1..{MAX_BINS}")
    if ("steps" in values) == ("sub_policies" in values):
        raise InputError(f"{path}: expected either steps or sub_policies, a list.")
    one = "steps" in values
    lists = [values["steps"]] if one else _items(f"{path}: sub_policies", values["sub_policies"])
    sub_policies = tuple(
        tuple(
            _step(f"{name}, step {d + 1}", step, bins)
            for d, step in enumerate(_items(name, steps))
        )
        for name, steps in (
            (f"{path}: steps" if one else f"{path}: sub_policies: {s + 1}", steps) for s, steps in enumerate(lists)
        )
    )  # fmt: skip
    fill = _fill(path, values.get("fill", 0))
    return Policy(OwnPolicy(sub_policies), bilinear=interpolation == "bilinear", fill=fill)


def _items(name: str, value: Any) -> list:
    ok = isinstance(value, list) and 1 <= len(value) <= MAX_ITEMS
    check(ok, name, value, f"a list of 1..{MAX_ITEMS} items")
    return value


def _check_fields(name: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{name}: expected a mapping of {', '.join(known)}.")
    for field in value:
        if field not in known:
            raise InputError(f"{name}: {field}: is not a field.{nearest(str(field), known)} It has {', '.join(known)}.")


def _fill(path: Path, value: Any) -> tuple[int, int, int]:
    numbers = value if isinstance(value, list) else [value] * 3
    ok = len(numbers) == 3 and all(is_integer(number) and 0 <= number <= 255 for number in numbers)
    check(ok, f"{path}: fill", value, "0..255, or a list of three such numbers")
    return tuple(numbers)


def _step(name: str, step: Any, bins: int) -> Step:
    return tuple(_choice(f"{name}, {k + 1}", item, bins) for k, item in enumerate(_items(name, step)))


def _choice(name: str, item: Any, bins: int) -> Choice:
    _check_fields(name, item, _OPERATION_FIELDS)
    operation, probability = item.get("operation"), item.get("probability", 1.0)
    signs = item.get("signed", False)
    if not isinstance(operation, str) or operation not in OPERATIONS:
        raise InputError(
            f"{name}: operation: got {operation!r}; expected one of {', '.join(OPERATIONS)}."
            f"{nearest(str(operation), OPERATIONS)}"
        )
    number = _is_number(probability) and 0 <= probability <= 1
    check(number, f"{name}: probability", probability, "0..1")
    check(isinstance(signs, bool), f"{name}: signed", signs, "true or false")
    unit = OPERATIONS[operation]
    if unit == "none":
        check("range" not in item and not signs, f"{name}: range", item.get("range"), f"none: {operation} has no value")
        return Choice(operation, probability=float(probability))
    low, high = _RANGES[unit]
    ends = item.get("range")
    ok = isinstance(ends, list) and len(ends) == 2 and all(_is_number(end) and low <= end <= high for end in ends)
    check(ok, f"{name}: range", ends, f"two numbers in {low:g}..{high:g}, in {unit}")
    check(not signs or unit in _WITH_SIGNS, f"{name}: signed", signs, f"false: {operation} has no sign")
    values = np.linspace(float(ends[0]), float(ends[1]), bins)
    values = np.rint(values) if unit == "bits" else values
    signed = [sign * value for value in values.tolist() for sign in ((1, -1) if signs else (1,))]
    return Choice(operation, tuple(signed), float(probability))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value

"""A sweep's definition: which fields vary, the trials that follow, and DIR/sweep.yaml, which stores it."""

import dataclasses
import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import yaml

from fastmagn.config.called import command
from fastmagn.config.command_line import parse_config
from fastmagn.config.plain_yaml import load_plain_yaml
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten, plain, yaml_text
from fastmagn.errors import InputError, nearest
from fastmagn.machine.files import write_text
from fastmagn.runs.changes import PLACE_FIELDS, may_change_in_sweep

DEFINITION = "sweep.yaml"
_SIGNIFICANT_DIGITS = 4  # of a random draw, which is part of a folder's name; more if a range has few such values
_FEW_VALUES, _MANY_VALUES = 900, 9000  # a decade has 9000 values of 4 digits
_MOST_DIGITS = 15  # that a float keeps
_LONGEST_NAME = 150  # file systems take 255


def _exact(value: float) -> str:
    """A number in few characters, from which the same number is read."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


class Range(NamedTuple):
    """An interval to draw from, uniformly or, with `log`, uniformly in the logarithm."""

    low: float
    high: float
    log: bool

    def __str__(self) -> str:
        return f"{_exact(self.low)}..{_exact(self.high)}" + (":log" if self.log else "")


@dataclass(frozen=True, kw_only=True)
class Search:
    """What varies. The trials are all combinations of one of `trials`, a point of the grid and a random draw.

    Args:
        trials: Sets of changes, each field -> value as the command line takes it.
        grid: field -> its values.
        random: field -> the range that it is drawn from.
        num_trials: Number of random draws, 0 without `random`.
        search_seed: Seed of the draws. A draw depends only on it, the field and the draw's number.
    """

    trials: tuple[dict[str, str], ...] = ({},)
    grid: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    random: dict[str, Range] = dataclasses.field(default_factory=dict)
    num_trials: int = 0
    search_seed: int = 0

    def points(self) -> list[dict[str, str]]:
        """The changes of every trial. Draws vary fastest, then the grid's last field."""
        names, axes = list(self.grid), list(self.grid.values())
        grid = [dict(zip(names, values, strict=True)) for values in itertools.product(*axes)]
        draws = [
            {name: draw(name, limits, self.search_seed, number) for name, limits in self.random.items()}
            for number in range(self.num_trials if self.random else 1)
        ]
        return [first | second | third for first in self.trials for second in grid for third in draws]

    def varied(self) -> list[str]:
        """The fields that vary, in the order in which they were given."""
        return list(dict.fromkeys([*(name for trial in self.trials for name in trial), *self.grid, *self.random]))


class Trial(NamedTuple):
    """One run of a sweep: its folder's name, the values of the varied fields, and its whole configuration."""

    name: str
    values: dict[str, Any]
    config: Config


def draw(field: str, limits: Range, seed: int, number: int) -> str:
    """A draw from a range, as the command line takes it: a whole number for an integer field, else 4 digits or more."""
    digest = hashlib.sha256(f"{seed} {field} {number}".encode()).digest()
    uniform = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little"))).random()
    if FIELD_TYPES[field] is int:
        low, high = math.ceil(limits.low), math.floor(limits.high)
        if limits.log:  # from low - 1/2 to high + 1/2, so that the ends have their share
            value = math.exp(math.log(low - 0.5) + uniform * (math.log(high + 0.5) - math.log(low - 0.5)))
        else:
            value = low - 0.5 + uniform * (high - low + 1)
        return str(min(max(round(value), low), high))
    if limits.log:
        value = math.exp(math.log(limits.low) + uniform * (math.log(limits.high) - math.log(limits.low)))
    else:
        value = limits.low + uniform * (limits.high - limits.low)
    rounded = float(f"{value:.{_num_digits(limits)}g}")
    return _exact(min(max(rounded, limits.low), limits.high))


def _num_digits(limits: Range) -> int:
    """How many significant digits tell many draws from a range apart; 4 for all but narrow ranges."""
    magnitudes = abs(limits.low), abs(limits.high)
    magnitude = min(magnitudes) if limits.log else max(magnitudes)
    # Just below: 0.01..0.1 has the digits of 0.099.
    unit = 10.0 ** (math.floor(math.log10(magnitude * (1 - 1e-9))) + 1 - _SIGNIFICANT_DIGITS)
    num_values = (limits.high - limits.low) / unit
    more = 0 if num_values >= _FEW_VALUES * (1 - 1e-9) else math.ceil(math.log10(_MANY_VALUES / num_values))
    return min(_SIGNIFICANT_DIGITS + more, _MOST_DIGITS)


def _field_types() -> dict[str, Any]:
    """The type of every field by its dotted name."""
    types: dict[str, Any] = {}
    for name, hint in get_type_hints(Config).items():
        types |= {f"{name}.{inner}": kind for inner, kind in get_type_hints(hint).items()} if is_dataclass(hint) else {}
        types |= {} if is_dataclass(hint) else {name: hint}
    return types


FIELD_TYPES = _field_types()


def check_field(name: str, given_by: str) -> None:
    """Raise InputError unless a sweep can vary the field `name`; `given_by` starts the message."""
    if name in ("run_dir", "resume"):
        raise InputError(f"{given_by}: got {name!r}; the sweep itself sets it. --out names the folder of all trials.")
    if name == "imports":
        raise InputError(f"{given_by}: got {name!r}; code runs only if the command line names it: --import FILE.")
    if name not in FIELD_TYPES:
        hint = nearest(name, FIELD_TYPES, cutoff=0.5)
        raise InputError(f"{given_by}: got {name!r}, which is not a field of the configuration.{hint}")


def parse_grid(text: str) -> tuple[str, tuple[str, ...]]:
    """The field and the values of `section.field=a,b,c`.

    Raises:
        InputError: The text has another form, or the field does not exist.
    """
    name, equals, values = text.partition("=")
    listed = tuple(value.strip() for value in values.split(","))
    if not equals or not all(listed):
        raise InputError(f"--grid: got {text!r}; expected section.field=a,b,c.")
    check_field(name, "--grid")
    return name, listed


def parse_random(text: str) -> tuple[str, Range]:
    """The field and the range of `section.field=low..high` or `section.field=low..high:log`.

    Raises:
        InputError: The text has another form, the field does not exist or is not a number, or the range is empty.
    """
    name, equals, limits = text.partition("=")
    if not equals:
        raise InputError(f"--random: got {text!r}; expected section.field=low..high or section.field=low..high:log.")
    check_field(name, "--random")
    return name, parse_range(name, limits)


def parse_range(name: str, text: str) -> Range:
    """The range `low..high` or `low..high:log` of the field `name`; see `parse_random`."""
    if FIELD_TYPES[name] not in (int, float):
        raise InputError(f"--random: {name}: is not a number; name its values with --grid {name}=a,b.")
    match = re.fullmatch(r"(.+?)\.\.(.+?)(:log)?", text)
    low, high, log = match.groups() if match else ("", "", None)
    try:
        found = Range(float(low), float(high), log is not None)
    except ValueError:
        raise InputError(f"--random: {name}: got {text!r}; expected low..high or low..high:log.") from None
    if not (math.isfinite(found.low) and math.isfinite(found.high) and found.low < found.high):
        raise InputError(f"--random: {name}: got {text!r}; expected low below high.")
    if found.log and found.low <= 0:
        raise InputError(f"--random: {name}: got {text!r}; expected a range above 0 for :log.")
    if FIELD_TYPES[name] is int and (found.low % 1 or found.high % 1):
        raise InputError(f"--random: {name}: got {text!r}; expected whole numbers, as the field is one.")
    return found


def make_trials(arguments: list[str], search: Search, out: Path) -> tuple[Config, list[Trial]]:
    """The configuration that all trials start from, and the trials, each checked by the schema.

    Args:
        arguments: Arguments of `python -m fastmagn.train`, for all trials.
        search: What varies.
        out: The folder that gets the trials' run folders.

    Raises:
        InputError: A field or a value is unknown or out of its range, or two trials are the same.
    """

    def parse(more: list[str]) -> Config:
        return parse_config([*arguments, *more], command("sweep"), "")

    trials, varied = [], search.varied()
    for point in search.points():
        config = parse([f"--{name}={value}" for name, value in point.items()])
        flat = flatten(config)
        trials.append(Trial("", {name: flat[name] for name in varied}, config))
    names = _names([trial.values for trial in trials])
    return parse([]), [
        Trial(name, trial.values, dataclasses.replace(trial.config, run_dir=out / name, resume="auto"))
        for name, trial in zip(names, trials, strict=True)
    ]


def _names(values: list[dict[str, Any]]) -> list[str]:
    """A folder's name for each trial, made of the values of its varied fields.

    Raises:
        InputError: Two trials have the same values.
    """
    keys = [json.dumps(value) for value in values]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            what = ", ".join(f"{name} {value}" for name, value in values[number].items()) or "none has a change"
            raise InputError(f"sweep: trials {keys.index(key) + 1} and {number + 1} are the same: {what}.")
    last = [name.split(".")[-1] for name in values[0]]
    short = {name: name.split(".")[-1] if last.count(name.split(".")[-1]) == 1 else name for name in values[0]}
    names = []
    for number, value in enumerate(values):
        parts = "_".join(f"{short[name]}-{one}" for name, one in value.items()) or "trial"
        name = re.sub(r"[^A-Za-z0-9._+-]", "-", parts)
        if len(name) > _LONGEST_NAME or name in names:
            name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(keys[number].encode()).hexdigest()[:8]}"
        names.append(name)
    return names


def definition(base: Config, search: Search) -> dict[str, Any]:
    """What sweep.yaml stores: what varies, and the fields that all trials share."""
    varied = set(search.varied())
    shared = {name: value for name, value in flatten(base).items() if name not in PLACE_FIELDS | varied}
    return {
        "trials": [dict(trial) for trial in search.trials],
        "grid": {name: list(values) for name, values in search.grid.items()},
        "random": {name: str(limits) for name, limits in search.random.items()},
        "num_trials": search.num_trials,
        "search_seed": search.search_seed,
        "fields": shared,
    }


def keep_definition(out: Path, wanted: dict[str, Any]) -> None:
    """Write DIR/sweep.yaml, with the fields as they are now. `check_definition` says what it must not replace."""
    write_text(out / DEFINITION, yaml_text(wanted))


def check_definition(out: Path, wanted: dict[str, Any]) -> None:
    """Check that DIR/sweep.yaml, if it is there, is of the same sweep. Fields that a run may change may differ.

    Raises:
        InputError: It is another sweep, or cannot be read.
    """
    path = out / DEFINITION
    if not path.exists():
        return
    try:
        before, now = _flat(load_plain_yaml(path)), _flat(wanted)
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as a sweep ({type(error).__name__}); name another --out.") from error
    defaults = _flat({"fields": flatten(Config())})  # for fields that did not exist when the sweep began
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name, defaults.get(name)), now.get(name, defaults.get(name))
        field = name.removeprefix("fields.")
        if old != new and not (field != name and may_change_in_sweep(field, old, new)):
            raise InputError(
                f"{path}: is another sweep: {field} is {_shown(old)} there and {_shown(new)}"
                " here. Name another --out, or resume it with the same arguments."
            )


def _flat(wanted: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in wanted.items():
        flat |= {f"{name}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {name: value}
    return plain(flat)


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)

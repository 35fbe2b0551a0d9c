"""Reads the text files of a run folder. Every command that is given a run reads it here, so the errors are the same.

The files may come from anyone: JSON is read strictly, and nothing in it is trusted to be printable.
"""

import json
import math
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fastmagn.config.command_line import parse_config
from fastmagn.config.schema import Config
from fastmagn.errors import InputError, is_kept
from fastmagn.runs.paths import CONFIG, RESULTS

_MAX_INTEGER = 2**64 - 1  # the largest seed


def check_run_folder(run_dir: Path) -> None:
    """Raise InputError unless `run_dir` is a folder that fastmagn.train made."""
    if not run_dir.exists():
        raise InputError(f"{run_dir}: no such folder; expected the folder of a run.")
    if not run_dir.is_dir():
        raise InputError(f"{run_dir}: is a file; expected the folder of a run.")
    if not (run_dir / CONFIG).is_file():
        raise InputError(f"{run_dir}: is not a run folder: it has no {CONFIG}. Give one that fastmagn.train made.")


def is_unfinished(run_dir: Path) -> bool:
    """Whether this is the folder of a run that has no results: its training or its evaluation has not ended."""
    return os.path.isfile(run_dir / CONFIG) and not os.path.exists(run_dir / RESULTS)


def read_config(run_dir: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run.

    Args:
        run_dir: The run folder.
        overrides: Command-line arguments such as `--data.dir DIR`, which take the place of the run's own fields.

    Raises:
        InputError: It is not a run folder, or its configuration cannot be read.
    """
    check_run_folder(run_dir)
    return parse_config(["--config", str(run_dir / CONFIG), *overrides], "run", "The configuration of a run.")


def read_results(file: Path) -> dict[str, Any]:
    """A results file, such as RUN/results.json or RUN/evaluation.json.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: It cannot be read, or it is not strict JSON with an object at the top.
    """
    try:
        results = strict_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, NaN
        raise damaged(file, str(error)) from error
    if not isinstance(results, dict):
        raise damaged(file, f"it holds a {type(results).__name__}, not an object")
    return results


def check_results(results: dict[str, Any], file: Path) -> None:
    """Check what commands read of a run's results.json. The file may come from anyone.

    Args:
        results: What it holds.
        file: The file, for the message.

    Raises:
        InputError: A field is missing, or of another type or range.
    """
    _check(results, _REQUIRED, file)
    _check(results, _OPTIONAL, file, needed=False)
    check_other_measures(results, file)


def check_other_measures(results: dict[str, Any], file: Path) -> None:
    """Check what a run's results.json has beside accuracy and RMS calibration error; older ones lack it.

    Raises:
        InputError: Something is there, but not whole or not of its kind.
    """
    _check(results, _OTHERS, file, needed=False)
    for name, kinds in _PARTS.items():
        value = _entry(results, name)
        if value is not _ABSENT and value is not None:
            _check(value, kinds, file, f"{name}.")
    _check_classes(results.get("class_accuracy"), file)
    others = results.get("ood", {})
    if not isinstance(others, dict):
        raise damaged(file, f"ood is {str(others)[:40]!r}, not an object")
    for name, entry in others.items():
        _check(entry, _DETECTION, file, f"ood.{name}.")
        for score in SCORES:
            if entry[score] is not None:
                _check(entry[score], dict.fromkeys(DETECTION_MEASURES, _FRACTION), file, f"ood.{name}.{score}.")


def _check_classes(entry: dict[str, Any] | None, file: Path) -> None:
    """Raise InputError unless all lists of an accuracy by class, which are checked, are of the same classes."""
    if entry is not None:
        lists = [name for name in ("class_names", *_BY_CLASS) if name in entry]
        lengths = [len(entry[name]) for name in lists]
        if len(set(lengths)) > 1:
            raise damaged(file, f"class_accuracy has lists of {lengths} classes ({', '.join(lists)})")


def _check(values: Any, kinds: "dict[str, _Kind]", file: Path, prefix: str = "", needed: bool = True) -> None:
    """Raise InputError unless the entries with these dotted names are of these kinds, and are there if `needed`."""
    lacking = [f"{prefix}{name}" for name in kinds if needed and _entry(values, name) is _ABSENT]
    if lacking:
        raise damaged(file, f"it lacks {', '.join(lacking)}")
    for name, (holds, expected) in kinds.items():
        value = _entry(values, name)
        if value is not _ABSENT and not holds(value):
            raise damaged(file, f"{prefix}{name} is {str(value)[:40]!r}, not {expected}")


_ABSENT = object()
_MAX_SIDE_PX = 4096
_Kind = tuple[Callable[[Any], bool], str]


def _entry(values: Any, name: str) -> Any:
    """The entry with a dotted name, or _ABSENT."""
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return _ABSENT
        values = values[part]
    return values


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0


def _is_fraction(value: Any) -> bool:
    return value is None or (_is_number(value) and value <= 1)


def _is_size(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and all(type(side) is int and 1 <= side <= _MAX_SIDE_PX for side in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(name) is str for name in value)


def _are_fractions(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_fraction, value))


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(count) is int and count >= 0 for count in value)


def _is_table(value: Any) -> bool:
    rows = value.values() if isinstance(value, dict) else ()
    return bool(rows) and all(isinstance(row, list) and len(row) == 5 and all(map(_is_fraction, row)) for row in rows)


def _are_severities(value: Any) -> bool:
    rows = value.values() if isinstance(value, dict) else [None]
    return all(isinstance(row, list) and bool(row) and set(map(repr, row)) <= set("12345") for row in rows)


_FRACTION: _Kind = (_is_fraction, "a fraction in 0..1 or null")
_NUMBER: _Kind = (_is_number, "a number, 0 or more")
_COUNT: _Kind = (lambda value: type(value) is int and value >= 1, "an integer, 1 or more")
_TEXT: _Kind = (lambda value: type(value) is str, "a text")
_OBJECT: _Kind = (lambda value: isinstance(value, dict), "an object")
_NAMES: _Kind = (_are_names, "a list of texts")
_REQUIRED: dict[str, _Kind] = {
    "num_images": _COUNT,
    "clean_accuracy": _FRACTION,
    "mca": (
        lambda value: isinstance(value, dict) and all(map(_is_fraction, value.values())),
        "an object of fractions in 0..1 or null",
    ),
    "corruption_accuracy": (_is_table, "five fractions in 0..1 or null for each corruption"),
    "rms_calibration_error": _OBJECT,
    **dict.fromkeys(("rms_calibration_error.clean", "rms_calibration_error.corrupt"), _FRACTION),
    "rms_calibration_error.num_bins": _COUNT,
    **{f"rms_calibration_error.{name}": _TEXT for name in ("corruption_set", "binning", "pooling")},
    **dict.fromkeys(("config", "config.data", "config.eval"), _OBJECT),
    **dict.fromkeys(("config.method", "config.data.name", "config.run_dir"), _TEXT),
}
_OPTIONAL: dict[str, _Kind] = {
    "class_names": _NAMES,
    **dict.fromkeys(("image_size", "padded_from"), (_is_size, f"[H, W] in 1..{_MAX_SIDE_PX} px")),
    **dict.fromkeys(("steps", "num_processes"), _COUNT),
    **dict.fromkeys(("train_s", "images_per_s", "wall_s", "wall_images_per_s"), _NUMBER),
    "test_fingerprint": _TEXT,
    **dict.fromkeys(("environment", "subset"), _OBJECT),
    "severities": (_are_severities, "an object of lists of severities 1 to 5"),
    "subset.chosen": _TEXT,
    "subset.of": _COUNT,
    "subset.seed": _NUMBER,
    "corrupted_as": (lambda value: value is None or isinstance(value, dict), "an object or null"),
    "corrupted_as.version": _COUNT,
}
_OTHERS: dict[str, _Kind] = {
    "mce_alexnet": (lambda value: value is None or _is_number(value), "a number or null"),
    **dict.fromkeys(("calibration", "calibration.clean", "calibration.corrupt"), _OBJECT),
    **{f"calibration.{part}.{name}": _FRACTION for part in ("clean", "corrupt") for name in ("ece", "adaptive_ece")},
    "class_accuracy.class_names": _NAMES,
}
_BY_CLASS: dict[str, _Kind] = {
    "num_images": (_are_counts, "a list of integers, 0 or more"),
    **dict.fromkeys(("clean", "corrupt"), (_are_fractions, "a list of fractions in 0..1 or null")),
}


# The names of what results.json has for each set of out-of-distribution images.
SCORES = ("max_softmax", "energy", "max_logit")
DETECTION_MEASURES = ("auroc", "aupr_in", "aupr_out", "fpr_at_95_tpr", "fpr_at_95_tpr_out")
_DETECTION: dict[str, _Kind] = {
    **dict.fromkeys(("num_test_images", "num_other_images"), _COUNT),
    **dict.fromkeys(SCORES, (lambda value: value is None or isinstance(value, dict), "an object or null")),
}
_RMS = {name: kind for name, kind in _REQUIRED.items() if name.startswith("rms_calibration_error")}
_PARTS: dict[str, dict[str, _Kind]] = {
    "class_accuracy": {
        "corruption_set": _TEXT,
        **_BY_CLASS,
        **{f"balanced_accuracy.{part}": _FRACTION for part in ("clean", "corrupt")},
    },
    "selective_prediction": {
        "corruption_set": _TEXT,
        **{f"{part}.{name}": _FRACTION for part in ("clean", "corrupt") for name in ("aurc", "risk_at_80_coverage")},
    },
    "temperature_scaling": {
        **{"temperature": _NUMBER, "images": _TEXT, "num_images": _COUNT},
        **_RMS,
        **{f"calibration.{part}.ece": _FRACTION for part in ("clean", "corrupt")},
    },
}


def damaged(file: Path, reason: str) -> InputError:
    """The error for a damaged results file, with the command that writes the file again."""
    run_dir = file.parent
    command = ["python", "-m", "fastmagn.train", "--config", str(run_dir / CONFIG), "--run_dir", str(run_dir)]
    if file.name != RESULTS:
        command = ["python", "-m", "fastmagn.evaluate", "--run", str(run_dir), "--out", str(file)]
    return InputError(f"{file}: is damaged ({reason}). To measure the run again: `{shlex.join(command)}`.")


def strict_json(text: str) -> Any:
    """JSON as a run writes it: finite numbers, integers of at most 64 bits, printable texts.

    Raises:
        ValueError: The text is not JSON, or holds something else.
        RecursionError: It is nested too deeply.
    """
    value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_integer)
    for text in _texts(value):
        if not is_kept(text):
            raise ValueError(f"it holds a text that cannot be shown, {text[:40]!r}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}")


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        _refuse(literal[:40])
    return value


def _integer(literal: str) -> int:
    value = int(literal)
    if abs(value) > _MAX_INTEGER:
        _refuse(f"{literal[:40]}, above 2^64")
    return value


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, including keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)

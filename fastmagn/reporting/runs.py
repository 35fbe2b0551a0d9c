"""Reads run folders for a report. A run that cannot be reported becomes a line that says why."""

import math
import os
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.corruptions import SEVERITIES
from fastmagn.corruptions.sets import AT, in_order, sets_to_show, with_severities
from fastmagn.data import OWN
from fastmagn.data.subset import BY_CLASS
from fastmagn.errors import InputError, is_shown, some
from fastmagn.evaluation.metrics.accuracy import mean_cbar_accuracy, mean_corruption_accuracy, measured_mean
from fastmagn.evaluation.subset import FIRST, Subset
from fastmagn.reporting.epochs import read_epochs
from fastmagn.reporting.protocols import NONE, Protocols, read_protocols
from fastmagn.reporting.weights import MeasuredWeights, read_weights, weights_method
from fastmagn.runs.paths import CONFIG, EVALUATION, LOGITS, METRICS, RESULTS
from fastmagn.runs.reading import check_other_measures, check_run_folder, is_unfinished, read_results

_MCA_TOLERANCE = 1e-6
# What older results lack, by its key in them.
MEASURES = (
    *("rms_calibration_error", "calibration", "temperature_scaling", "selective_prediction", "class_accuracy"),
    *("ood", "mce_alexnet"),
)
_MAX_NAME = 100  # characters of a method's, network's or data set's name


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What a report needs of one measured run. Accuracies and errors are fractions in 0..1.

    Args:
        path: The path that was given: the run folder, or a results file in it.
        config: The whole configuration, nested as in config.yaml. Of measured weights it says nothing but how they were
            measured.
        method: The method, or what stands for it, see `weights_method`.
        data: The data set. For `folder` it is the name and the folder, since two folders are two sets.
        corruption_accuracy: corruption -> accuracies at severities 1..5; None where a corruption lacks the severity.
        rms: `clean`, `corrupt`, and the settings they depend on (`corruption_set`, `num_bins`, `binning`, `pooling`).
        reliability: `clean` and `corrupt`, each with `count`, `accuracy` and `confidence` of every bin; None in older
            results.
        epochs: The rows of metrics.jsonl; empty if there are none.
        images_per_s: The training speed; None if it was not measured, as in an evaluation.
        steps: The steps of the training; None where the results do not say it.
        subset: Which test images were measured, if not all; older results have the first ones.
        corruptions: The version of the corruptions, and the quality of the JPEG that followed (0 for none).
        are_published: Whether the corrupted images are of a -C set that fastmagn has not made.
        measures: The results' other measures, as far as they have them, checked; see `MEASURES`.
        protocols: What was measured beside accuracy and calibration.
        weights: The file that was measured; None for a run.
    """

    path: Path
    config: dict[str, Any]
    method: str
    data: str
    network: str
    seed: int
    num_images: int
    clean_accuracy: float
    corruption_accuracy: dict[str, tuple[float | None, ...]]
    rms: dict[str, Any]
    reliability: dict[str, Any] | None
    epochs: tuple[dict[str, Any], ...]
    environment: dict[str, Any]
    images_per_s: float | None
    steps: int | None = None
    subset: Subset = FIRST
    corruptions: tuple[int, int] = (1, 0)
    are_published: bool = False
    measures: dict[str, Any] = field(default_factory=dict)
    protocols: Protocols = NONE
    weights: MeasuredWeights | None = None

    @property
    def folder(self) -> Path:
        return self.path if os.path.isdir(self.path) else self.path.parent

    @property
    def logits(self) -> Path:
        """The folder that its stored logits are in, if it has any."""
        return (self.path.with_suffix("") if self.weights else self.folder) / LOGITS

    @property
    def fields(self) -> dict[str, Any]:
        """The configuration by dotted names; a field that is newer than the run has its default."""
        return flatten(Config()) | flatten(self.config)

    @property
    def trained_for(self) -> str:
        """The epochs of its training in words; a dash for measured weights."""
        if self.weights:
            return "–"
        limit = self.fields["train.max_steps"]
        is_ended_by_it = limit and (self.steps is None or self.steps >= limit)
        return f"{self.fields['train.epochs']}" + (f", ended by train.max_steps {limit}" if is_ended_by_it else "")

    def mca(self, names: Iterable[str]) -> float | None:
        """The mean accuracy over the corruptions `names` and their severities; None if one was not measured."""
        return mean_corruption_accuracy(self.corruption_accuracy, names)

    def mean(self, name: str, severities: Sequence[int]) -> float | None:
        """The mean accuracy on a corruption over these severities; None if one of them was not measured."""
        return measured_mean(self.corruption_accuracy.get(name, (None,) * len(SEVERITIES)), severities)

    @property
    def cbar_mca(self) -> float | None:
        """The mean accuracy over C-bar's ten, of CIFAR-10-C-bar or of ImageNet-C-bar; None without them."""
        return mean_cbar_accuracy(self.corruption_accuracy)

    @property
    def complete(self) -> set[str]:
        """The corruptions that were measured at all five severities."""
        return {name for name, values in self.corruption_accuracy.items() if None not in values}


def read_runs(paths: Iterable[Path]) -> tuple[list[FinishedRun], list[str]]:
    """The runs that can be reported, and a warning for every run, or part of a run, that cannot.

    Raises:
        InputError: No run can be reported.
    """
    runs, warnings = [], []
    seen: dict[str, Path] = {}
    for path in paths:
        resolved = os.path.realpath(_results_file(path))  # Path.resolve raises an error in a loop of links
        if resolved in seen:
            warnings.append(f"{path}: given twice, first as {seen[resolved]}; counted once.")
            continue
        seen[resolved] = path
        try:
            run, faults = read_run(path)
        except InputError as error:
            warnings.append(f"{error} Left out.")
        except OSError as error:  # a name that is too long, a folder without permission, a disk that fails
            warnings.append(f"{path}: cannot be read ({error.strerror or error}). Left out.")
        else:
            runs.append(run)
            warnings += faults
    warnings += _unread([run.path for run in runs], set(seen))
    if not runs:
        raise InputError(f"RUN: {' '.join(warnings) or 'got none.'} Nothing is left to report.")
    return runs, warnings


def _unread(read: Iterable[Path], given: Collection[str]) -> list[str]:
    """A line about the evaluations in the run folders that were read, but for those whose real path was given."""
    files = [path / EVALUATION for path in read if os.path.isdir(path)]
    files = [file for file in files if os.path.realpath(file) not in given and _is_whole(file)]
    if len(files) > 1:
        return [f"{some(map(str, files))}, measurements of their own, are not in this report; name them to have them."]
    return [f"{file}, a measurement of its own, is not in this report; name it to have it." for file in files]


def _is_whole(file: Path) -> bool:
    """Whether it has what a report shows: `evaluate --images` alone leaves accuracies on folders of images only."""
    try:
        return os.path.isfile(file) and "clean_accuracy" in read_results(file)
    except (InputError, OSError):
        return False


def read_run(path: Path) -> tuple[FinishedRun, list[str]]:
    """Read a run folder with a results.json, or a results file such as RUN/evaluation.json.

    Returns:
        The run, and warnings about parts of it that cannot be read.

    Raises:
        InputError: There are no results, or they are damaged.
    """
    file = _results_file(path)
    results = _read_results(path, file)
    config = _get(results, "config", dict, file)
    if config.keys() <= {"eval"}:
        raise InputError(
            f"{file}: is an evaluation of stored logits, which names no method and no data set; expected one of a run"
            " or of weights. Measure them with python -m fastmagn.evaluate --run RUN, and report what it writes."
        )
    name = _name(config, "data.name", file)
    data = f"{name} {_get(config, 'data.dir', str, file, 'config.')}" if name in OWN else name
    _check_finite(results, file)
    accuracy = _corruption_accuracy(results, file)
    weights, method = read_weights(results, file), _name(config, "method", file)
    epochs, faults = read_epochs(file.parent / METRICS) if weights is None else ((), [])
    speed, steps = results.get("images_per_s"), results.get("steps")
    run = FinishedRun(
        path=path,
        config=config,
        method=method if weights is None else weights_method(method),
        data=data,
        network=_name(config, "model.name", file),
        seed=_get(config, "train.seed", int, file, "config."),
        num_images=_num_images(results, file),
        clean_accuracy=_fraction(_get(results, "clean_accuracy", float, file), "clean_accuracy", file),
        corruption_accuracy=accuracy,
        rms=_rms(results, file),
        reliability=_reliability(results, file),
        epochs=epochs,
        environment=_get(results, "environment", dict, file),
        images_per_s=float(speed) if isinstance(speed, int | float) else None,
        steps=steps if type(steps) is int else None,
        subset=_subset(results, file),
        corruptions=_corruptions(results, file),
        are_published=_are_published(results, config),
        measures=_measures(results, file),
        protocols=read_protocols(results, file),
        weights=weights,
    )
    if weights is None and is_unfinished(file.parent):
        faults.append(f"{path}: is of a run whose training or evaluation has not ended. It is shown nevertheless.")
    return run, faults


def _results_file(path: Path) -> Path:
    return path if os.path.isfile(path) else path / RESULTS  # Path.is_file raises errors of the disk


def _read_results(path: Path, file: Path) -> dict[str, Any]:
    if file == path and path.suffix != ".json":
        raise InputError(f"{path}: is a file; expected a run folder, or a results file (.json) in one.")
    if file != path:
        check_run_folder(path)
    try:
        return read_results(file)
    except FileNotFoundError:
        command = shlex.join(["python", "-m", "fastmagn.train", "--config", str(path / CONFIG), "--run_dir", str(path)])
        raise InputError(f"{path}: has no {RESULTS}: training has not ended. To resume it: `{command}`.") from None


def _name(config: dict[str, Any], field: str, file: Path) -> str:
    name = _get(config, field, str, file, "config.")
    if not 0 < len(name) <= _MAX_NAME:
        raise InputError(f"{file}: config.{field}: got {len(name)} characters; expected a name of 1..{_MAX_NAME}.")
    return name


def _get(values: dict[str, Any], name: str, kind: type, file: Path, prefix: str = "") -> Any:
    """The entry with a dotted name, which must have this type. An integer counts as a float, a bool as neither."""
    value: Any = values
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"{file}: lacks {prefix}{name}; expected what training or evaluation writes.")
        value = value[part]
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{file}: {prefix}{name}: got {value!r}; expected a {kind.__name__}.")
    return value


def _num_images(results: dict[str, Any], file: Path) -> int:
    num_images = _get(results, "num_images", int, file)
    if num_images < 1:
        raise InputError(f"{file}: num_images: got {num_images}; expected 1 or more.")
    return num_images


def _fraction(value: Any, name: str, file: Path) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (math.isfinite(value) and 0 <= value <= 1):
        raise InputError(f"{file}: {name}: got {value!r}; expected a fraction in 0..1.")
    return float(value)


def _check_finite(results: dict[str, Any], file: Path) -> None:
    """Raise InputError if an accuracy is null, as evaluations write it where logits are NaN or infinite.

    At a severity that a corruption lacks it is null too.
    """
    table = results.get("corruption_accuracy")
    cells = {"clean": [results.get("clean_accuracy", 0)]} | (table if isinstance(table, dict) else {})
    few = _few(results, file)
    faulty = [
        name
        for name, values in cells.items()
        if isinstance(values, list)
        and any(value is None and s in few.get(name, SEVERITIES) for s, value in enumerate(values, start=1))
    ]
    if faulty:
        raise InputError(f"{file}: has no accuracy for {some(faulty)}: logits were NaN or infinite there.")


def _corruption_accuracy(results: dict[str, Any], file: Path) -> dict[str, tuple[float | None, ...]]:
    """The accuracies by corruption, in the registry's order. They must agree with the results' mCA."""
    table, few = {}, _few(results, file)
    for name, values in _get(results, "corruption_accuracy", dict, file).items():
        field = f"corruption_accuracy.{name}"
        if not 0 < len(name) <= _MAX_NAME or not is_shown(name):
            raise InputError(
                f"{file}: corruption_accuracy: got {name[:_MAX_NAME]!r}; expected names of 1..{_MAX_NAME} characters."
            )
        if not isinstance(values, list) or len(values) != len(SEVERITIES):
            raise InputError(f"{file}: {field}: got {values!r}; expected 5 fractions, of severities 1 to 5.")
        severities = few.get(name, SEVERITIES)
        table[name] = tuple(
            _fraction(value, field, file) if s in severities else None for s, value in enumerate(values, start=1)
        )
    if not table:
        raise InputError(f"{file}: corruption_accuracy: got none; expected at least one corruption.")
    table = {name: table[name] for name in in_order(table)}
    written = _get(results, "mca", dict, file)
    for name, members in sets_to_show(table).items():
        computed, value = mean_corruption_accuracy(table, members), written.get(name)
        agree = computed is None or (isinstance(value, int | float) and abs(value - computed) < _MCA_TOLERANCE)
        if not agree:
            raise InputError(f"{file}: mca.{name}: got {value!r}; corruption_accuracy gives {computed:.6f}.")
    return table


def _few(results: dict[str, Any], file: Path) -> dict[str, list[int]]:
    """The severities of the corruptions that have fewer than five; older results have none."""
    if "severities" not in results:
        return {}
    few = _get(results, "severities", dict, file)
    for name, values in few.items():
        if not isinstance(values, list) or not values or not set(map(repr, values)) < set(map(repr, SEVERITIES)):
            raise InputError(f"{file}: severities.{name}: got {values!r}; expected some of 1 to 5, not all.")
    return few


def _subset(results: dict[str, Any], file: Path) -> Subset:
    if "subset" not in results:
        return FIRST
    chosen = _get(results, "subset.chosen", str, file)
    if chosen != BY_CLASS:
        return FIRST
    seed = _get(results, "subset.seed", int, file)
    if seed < 0:
        raise InputError(f"{file}: subset.seed: got {seed}; expected 0 or more.")
    return Subset(BY_CLASS, seed)


def _corruptions(results: dict[str, Any], file: Path) -> tuple[int, int]:
    """Results of version 1 do not say it, and published -C sets have no version."""
    if results.get("corrupted_as") is None:
        return 1, 0
    quality = results["corrupted_as"].get("jpeg_quality") if isinstance(results["corrupted_as"], dict) else None
    version = _get(results, "corrupted_as.version", int, file)
    return version, quality if type(quality) is int else 0


def _are_published(results: dict[str, Any], config: dict[str, Any]) -> bool:
    """Results of version 1 do not say how a -C set was made; its folder is then taken for a published one."""
    settings = config.get("eval")
    has_folder = isinstance(settings, dict) and settings.get("corrupted_dir") is not None
    return has_folder and results.get("corrupted_as") is None


def _measures(results: dict[str, Any], file: Path) -> dict[str, Any]:
    check_other_measures(results, file)
    few = _few(results, file)
    return {name: _titled(results[name], results, few) for name in MEASURES if name in results}


def _titled(entry: Any, results: dict[str, Any], few: dict[str, list[int]]) -> Any:
    """The entry and those in it, with the severities in each `corruption_set`, which older results lack."""
    if not isinstance(entry, dict) or not few:
        return entry
    whole = {name: _titled(value, results, few) for name, value in entry.items()}
    title = entry.get("corruption_set")
    if isinstance(title, str) and AT not in title:
        sets = sets_to_show(results["corruption_accuracy"])
        names = [name for part in title.split("+") for name in sets.get(part, (part,))]
        whole["corruption_set"] = with_severities(title, {name: few.get(name, SEVERITIES) for name in names})
    return whole


def _rms(results: dict[str, Any], file: Path) -> dict[str, Any]:
    rms = _get(results, "rms_calibration_error", dict, file)
    for name in ("clean", "corrupt"):
        _fraction(_get(rms, name, float, file, "rms_calibration_error."), f"rms_calibration_error.{name}", file)
    for name, kind in (("num_bins", int), ("binning", str), ("pooling", str), ("corruption_set", str)):
        _get(rms, name, kind, file, "rms_calibration_error.")
    return _titled(rms, results, _few(results, file))


def _reliability(results: dict[str, Any], file: Path) -> dict[str, Any] | None:
    if "reliability" not in results:
        return None
    num_bins = results["rms_calibration_error"]["num_bins"]
    for part in (f"reliability.{name}" for name in ("clean", "corrupt")):
        columns = [_get(results, f"{part}.{name}", list, file) for name in ("count", "accuracy", "confidence")]
        if any(len(column) != num_bins for column in columns):
            raise InputError(f"{file}: {part}: got lists of {[*map(len, columns)]}; expected {num_bins} bins in each.")
        for count, accuracy, confidence in zip(*columns, strict=True):
            if type(count) is not int or count < 0:
                raise InputError(f"{file}: {part}.count: got {count!r}; expected 0 or more.")
            if count:
                _fraction(accuracy, f"{part}.accuracy", file)
                _fraction(confidence, f"{part}.confidence", file)
        if sum(columns[0]) == 0:
            raise InputError(f"{file}: {part}.count: got no predictions; expected at least one.")
    return results["reliability"]

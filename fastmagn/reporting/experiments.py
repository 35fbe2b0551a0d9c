"""Runs that differ only in their seed form one experiment: a column of a table, a line of a figure."""

import json
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastmagn.config.text import flatten
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES
from fastmagn.corruptions.sets import in_order
from fastmagn.errors import some
from fastmagn.methods.table import base_name, is_method
from fastmagn.reporting.names import DATA_TITLES, NETWORK_TITLES, method_order, method_title, order, set_title
from fastmagn.reporting.paper import WEIGHTS, has_paper_settings, paper_value
from fastmagn.reporting.runs import FinishedRun
from fastmagn.reporting.weights import weights_titles
from fastmagn.runs.changes import NO_WEIGHTS, views_of

# Fields that say where a run lies and how it was computed. They change no number, or only its last digits.
_BOOKKEEPING = frozenset(
    NO_WEIGHTS
    | {
        "train.channels_last",
        "eval.batch_size",
        "eval.corruption_jpeg",
        "eval.cache_dir",
        "eval.save_logits",
        "eval.ood",
        "eval.temperature_images",
    }
    # What is measured beside the numbers that are compared.
    | {f"eval.{name}" for name in ("perturbations", "perturbed_dir", "fourier", "fourier_images", "fourier_norm")}
    | {"eval.batch_norm"}
)
_MAX_CHANGES_SHOWN = 2
CALIBRATION_SET = "c18"


class Statistic(NamedTuple):
    """The mean over n runs and, for n >= 2, their sample standard deviation (n - 1); fractions."""

    mean: float
    sd: float | None
    num_runs: int


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Runs of one configuration.

    Args:
        label: The method's title and, in parentheses, the differences from variant 0 of that method. Each file of
            measured weights counts as a method.
        variant: 0 for a method's first configuration on this data set and network, then 1, 2, ...
        look: The number of the method among those of the report that are not fastmagn's own, 0, 1, ...; what is drawn
            of it then differs. Measured files are methods here too, and NAME+magn is NAME.
        config: The flat configuration (dotted names) of the first run.
        runs: At least one run, by ascending seed.
    """

    data: str
    network: str
    method: str
    label: str
    variant: int
    config: dict[str, Any]
    runs: tuple[FinishedRun, ...]
    look: int = 0

    @property
    def rank(self) -> tuple:
        """The sort key of columns: method, then variant."""
        return (method_order(self.method), self.variant, self.label)

    @property
    def measured(self) -> list[str]:
        """Every corruption that some run has measured, in the registry's order, then those that it lacks."""
        return in_order(name for run in self.runs for name in run.corruption_accuracy)

    def statistic(self, measure: Callable[[FinishedRun], float | None]) -> Statistic | None:
        """The mean and the spread of a measure over the runs; None if a run lacks it."""
        measured = [measure(run) for run in self.runs]
        values = [value for value in measured if value is not None]
        if len(values) < len(measured):
            return None
        sd = statistics.stdev(values) if len(values) > 1 else None
        return Statistic(statistics.fmean(values), sd, len(values))

    def paper(self, measure: str) -> float | None:
        """The paper's number for a measure; see `paper_value`."""
        return paper_value(self.data, self.network, self.method, self.config, measure)


def group_experiments(runs: Iterable[FinishedRun]) -> tuple[list[Experiment], list[str]]:
    """Group runs into experiments, in order of data set, network, method and variant.

    Returns:
        The experiments, and a warning for each run that is shown while others with its seed and configuration are left
        out. Of two results of one run folder, those that hold more measures stay.
    """
    by_method: dict[tuple, dict[str, list[FinishedRun]]] = {}
    copies: dict[Path, list[FinishedRun]] = {}
    for run in sorted(runs, key=_place):
        same = by_method.setdefault(_place(run)[:4], {}).setdefault(recipe(run), [])
        first = next((other for other in same if other.seed == run.seed), None)
        if first is None:
            same.append(run)
            continue
        kept, left = _fuller(first, run)
        same[same.index(first)] = kept
        copies[kept.path] = [*copies.pop(first.path, []), left]
    firsts = [next(iter(group.values()))[0] for group in by_method.values()]
    titles = weights_titles((run.method, run.weights.place) for run in firsts if run.weights)
    looks: dict[tuple[str, str], int] = {}
    experiments = []
    for first, group in zip(firsts, by_method.values(), strict=True):
        title = titles[first.method, first.weights.place] if first.weights else method_title(first.method)
        place = first.weights.place if first.weights else ""
        look = 0 if is_method(first.method) else looks.setdefault((base_name(first.method), place), len(looks))
        experiments += [replace(item, look=look) for item in _variants(list(group.values()), title)]
    return experiments, [_copies(kept, left) for kept, left in copies.items()]


def _copies(kept: Path, left: Sequence[FinishedRun]) -> str:
    have = "has" if len(left) == 1 else "have"
    return (
        f"{some(str(run.path) for run in left)}: {have} the same configuration and seed {left[0].seed} as {kept};"
        " a copy would make the spread too small. Left out."
    )


def _fuller(first: FinishedRun, second: FinishedRun) -> tuple[FinishedRun, FinishedRun]:
    """Which of two results of one configuration and seed to keep, then the other.

    It is the second only if both measure the same weights of one run folder on the same folder of images, and it has
    more measures. It keeps the speed of the training.
    """
    is_one_run = not first.weights and os.path.realpath(first.folder) == os.path.realpath(second.folder)
    places = {os.path.realpath(str(run.fields["data.dir"])) for run in (first, second)}
    is_of_same = (
        is_one_run and len(places) == 1 and (None in (first.steps, second.steps) or first.steps == second.steps)
    )
    if not is_of_same or _num_measures(second) <= _num_measures(first):
        return first, second
    return replace(second, images_per_s=second.images_per_s or first.images_per_s), first


def _num_measures(run: FinishedRun) -> int:
    entries = [*run.measures.values(), *run.protocols]
    return sum(entry is not None for entry in entries) + len(run.measures.get("ood") or {})


def _place(run: FinishedRun) -> tuple:
    names = (order(DATA_TITLES, run.data), order(NETWORK_TITLES, run.network), method_order(run.method))
    return (*names, run.weights.place if run.weights else "", recipe(run), run.seed, str(run.path))


def recipe(run: FinishedRun, but: Iterable[str] = ()) -> str:
    """A key that is the same for runs that differ only in their seed and in the fields `but` (dotted names)."""
    config = {field: value for field, value in _deciding(run).items() if field not in set(but)}
    file = run.weights._replace(file="") if run.weights else ()
    return json.dumps([config, run.num_images, *run.subset, *run.corruptions, *file], sort_keys=True)


def _deciding(run: FinishedRun) -> dict[str, Any]:
    """The fields that decide a run's numbers, but for its seed."""
    fields = run.fields | {"augment.backend": views_of(run.fields["augment.backend"])}
    return {field: value for field, value in fields.items() if field not in _BOOKKEEPING | {"train.seed"}}


def _variants(groups: list[list[FinishedRun]], title: str) -> list[Experiment]:
    """The experiments of one method on one data set and network: the paper's settings first, then by number of runs."""

    def rank(runs: list[FinishedRun]) -> tuple:
        return (not has_paper_settings(runs[0].method, flatten(runs[0].config)), -len(runs), recipe(runs[0]))

    groups = sorted(groups, key=rank)
    labels: list[str] = []
    for variant, runs in enumerate(groups):
        label = title if variant == 0 else f"{title} ({_changes(groups[0][0], runs[0])})"
        labels.append(label if label not in labels else f"{label} [{variant}]")
    return [
        Experiment(
            data=runs[0].data,
            network=runs[0].network,
            method=runs[0].method,
            label=label,
            variant=variant,
            config=flatten(runs[0].config),
            runs=tuple(runs),
        )
        for variant, (label, runs) in enumerate(zip(labels, groups, strict=True))
    ]


def _changes(base: FinishedRun, other: FinishedRun) -> str:
    """The fields in which `other` differs from `base`; the name of its folder if there are many."""
    before, after = _deciding(base), _deciding(other)
    fields = [name for name in after if after[name] != before.get(name)]
    changes = [f"{WEIGHTS.get(name, name.split('.')[-1])} {_short(after[name])}" for name in fields]
    if other.corruptions != base.corruptions:
        version, quality = other.corruptions
        changes.append(f"corruptions of version {version}, " + (f"JPEG {quality}" if quality else "no JPEG"))
    if other.weights and base.weights and other.weights[2:] != base.weights[2:]:
        changes.append(f"mean {_numbers(other.weights.mean)}, std {_numbers(other.weights.std)}")
    if 0 < len(changes) <= _MAX_CHANGES_SHOWN:
        return ", ".join(changes)
    return Path(os.path.realpath(other.folder)).name


def sensitivity_families(experiments: Iterable[Experiment]) -> list[list[Experiment]]:
    """Groups of two or more experiments on one data set that differ only in their `WEIGHTS`."""
    families: dict[tuple[str, str], list[Experiment]] = {}
    for experiment in experiments:
        if WEIGHTS.keys() <= experiment.config.keys():
            family = (experiment.network, recipe(experiment.runs[0], but=WEIGHTS))
            families.setdefault(family, []).append(experiment)
    return [family for family in families.values() if len(family) > 1]


def without_sensitivity(experiments: Iterable[Experiment]) -> list[Experiment]:
    """The experiments, with only the first one of each group that differs in its `WEIGHTS`."""
    experiments = list(experiments)
    others = {id(experiment) for family in sensitivity_families(experiments) for experiment in family[1:]}
    return [experiment for experiment in experiments if id(experiment) not in others]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values) or "unknown"


def common_set(experiments: Iterable[Experiment]) -> tuple[str, tuple[str, ...]]:
    """The title and the corruptions that all runs have measured: c18 if all have it, else c15, else what they share."""
    shared = set.intersection(*(run.complete for experiment in experiments for run in experiment.runs))
    for title in (CALIBRATION_SET, "c15"):
        if set(CORRUPTION_SETS[title]) <= shared:
            return title, CORRUPTION_SETS[title]
    names = tuple(in_order(shared))
    return set_title(names), names


def measured_severities(experiments: Iterable[Experiment]) -> dict[str, tuple[int, ...]]:
    """Every corruption that some run has measured, in the registry's order, and the severities that some run has.

    A corruption's mean is over these for all runs: a run that lacks one has no mean, so that like stands beside like.
    """
    tables = [run.corruption_accuracy for experiment in experiments for run in experiment.runs]
    lacking = (None,) * len(SEVERITIES)
    return {
        name: tuple(
            severity
            for severity, *cells in zip(SEVERITIES, *(table.get(name, lacking) for table in tables), strict=True)
            if any(cell is not None for cell in cells)
        )
        for name in in_order(name for table in tables for name in table)
    }


def corrupt_rms(run: FinishedRun, corruption_set: str) -> float | None:
    """The RMS calibration error on this set of corruptions; None if it was measured on another set."""
    return run.rms["corrupt"] if run.rms["corruption_set"] == corruption_set else None


def calibration_bins(run: FinishedRun) -> str:
    """How the run's calibration errors were computed: `15 bins of equal width, corruptions pooled`."""
    binning = {"width": "equal width", "adaptive": "equal numbers of predictions"}
    pooling = {"pooled": "corruptions pooled", "per_corruption": "mean of the corruptions' errors"}
    ways = binning.get(run.rms["binning"], run.rms["binning"]), pooling.get(run.rms["pooling"], run.rms["pooling"])
    return f"{run.rms['num_bins']} bins of {ways[0]}, {ways[1]}"

"""Runs that differ only in their seed are one experiment: a column of a table, a line of a figure."""

import json
import os
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fastmagn.config.text import flatten
from fastmagn.corruptions import CORRUPTION_SETS, CORRUPTIONS
from fastmagn.methods.table import METHODS
from fastmagn.reporting.names import DATA_TITLES, NETWORK_TITLES, method_title, order, set_title
from fastmagn.reporting.paper import WEIGHTS, has_paper_settings, paper_value
from fastmagn.reporting.runs import FinishedRun

# Where a run lies and how it was computed: these change no number, or its last digits only.
_BOOKKEEPING = frozenset(
    {"run_dir", "resume", "device", "data.dir", "data.download", "train.compile", "train.channels_last"}
    | {
        "train.compile_mode",
        "train.profile",
        "train.wandb_project",
        "train.checkpoint_every_steps",
        "eval.batch_size",
        "eval.cache_dir",
        "eval.save_logits",
    }
)
_MAX_CHANGES_SHOWN = 2
CALIBRATION_SET = "c18"


class Statistic(NamedTuple):
    """Of n runs: their mean and, from two on, the sample standard deviation (n - 1), as fractions."""

    mean: float
    sd: float | None
    num_runs: int


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Runs of one configuration.

    Args:
        label: The method's title and, in parentheses, what differs from variant 0 of that method.
        variant: 0 for a method's first configuration on this data set and network, then 1, 2, ...
        config: The runs' flat config (dotted names).
        runs: By ascending seed, at least one.
    """

    data: str
    network: str
    method: str
    label: str
    variant: int
    config: dict[str, Any]
    runs: tuple[FinishedRun, ...]

    @property
    def rank(self) -> tuple:
        """Sorts columns: by method, then by variant."""
        return (order(METHODS, self.method), self.variant, self.label)

    def statistic(self, measure: Callable[[FinishedRun], float | None]) -> Statistic | None:
        """Mean and spread of a measure over the runs; None where a run lacks it."""
        values = [measure(run) for run in self.runs]
        if any(value is None for value in values):
            return None
        sd = statistics.stdev(values) if len(values) > 1 else None
        return Statistic(statistics.fmean(values), sd, len(values))

    def paper(self, measure: str) -> float | None:
        """The paper's number, see `paper_value`."""
        return paper_value(self.data, self.network, self.method, self.config, measure)


def group_experiments(runs: Iterable[FinishedRun]) -> tuple[list[Experiment], list[str]]:
    """The runs as experiments, ordered by data set, network, method and variant whatever the order they came in.

    Returns:
        The experiments, and a line for every run left out because another with its seed and configuration is there.
    """
    by_method: dict[tuple, dict[str, list[FinishedRun]]] = {}
    warnings = []
    for run in sorted(runs, key=_place):
        same = by_method.setdefault(_place(run)[:3], {}).setdefault(recipe(run), [])
        if any(other.seed == run.seed for other in same):
            first = next(other for other in same if other.seed == run.seed)
            warnings.append(
                f"{run.path}: the same configuration and seed {run.seed} as {first.path}; a copy would make the spread"
                " too small. Left out."
            )
        else:
            same.append(run)
    experiments = [experiment for group in by_method.values() for experiment in _variants(list(group.values()))]
    return experiments, warnings


def _place(run: FinishedRun) -> tuple:
    names = (order(DATA_TITLES, run.data), order(NETWORK_TITLES, run.network), order(METHODS, run.method))
    return (*names, recipe(run), run.seed, str(run.path))


def recipe(run: FinishedRun, but: Iterable[str] = ()) -> str:
    """A key that is equal for runs that differ only in the seed and in the fields `but` (dotted names)."""
    ignored = _BOOKKEEPING | {"train.seed"} | set(but)
    config = {field: value for field, value in flatten(run.config).items() if field not in ignored}
    return json.dumps([config, run.num_images], sort_keys=True)


def _variants(groups: list[list[FinishedRun]]) -> list[Experiment]:
    """One method's experiments on one data set and network: the paper's settings first, then those with most runs."""

    def rank(runs: list[FinishedRun]) -> tuple:
        return (not has_paper_settings(runs[0].method, flatten(runs[0].config)), -len(runs), recipe(runs[0]))

    groups = sorted(groups, key=rank)
    labels: list[str] = []
    for variant, runs in enumerate(groups):
        title = method_title(runs[0].method)
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
    """What `other` has that `base` has not: its fields, or its folder's name where they are many."""
    before, after = flatten(base.config), flatten(other.config)
    fields = [name for name in after if name not in _BOOKKEEPING | {"train.seed"} and after[name] != before.get(name)]
    if 0 < len(fields) <= _MAX_CHANGES_SHOWN:
        return ", ".join(f"{WEIGHTS.get(name, name.split('.')[-1])} {_short(after[name])}" for name in fields)
    return Path(os.path.realpath(other.folder)).name


def sensitivity_families(experiments: Iterable[Experiment]) -> list[list[Experiment]]:
    """Experiments on one data set that differ in nothing but their `WEIGHTS`, where there are two or more of them."""
    families: dict[tuple[str, str], list[Experiment]] = {}
    for experiment in experiments:
        if WEIGHTS.keys() <= experiment.config.keys():
            family = (experiment.network, recipe(experiment.runs[0], but=WEIGHTS))
            families.setdefault(family, []).append(experiment)
    return [family for family in families.values() if len(family) > 1]


def without_sensitivity(experiments: Iterable[Experiment]) -> list[Experiment]:
    """The experiments, of each family that differs in `WEIGHTS` only the first."""
    experiments = list(experiments)
    others = {id(experiment) for family in sensitivity_families(experiments) for experiment in family[1:]}
    return [experiment for experiment in experiments if id(experiment) not in others]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def common_set(experiments: Iterable[Experiment]) -> tuple[str, tuple[str, ...]]:
    """The corruption set that all runs measured and its title: c18 if they can, else c15, else what they share."""
    shared = set(CORRUPTIONS)
    for experiment in experiments:
        for run in experiment.runs:
            shared &= run.corruption_accuracy.keys()
    for title in (CALIBRATION_SET, "c15"):
        if set(CORRUPTION_SETS[title]) <= shared:
            return title, CORRUPTION_SETS[title]
    names = tuple(name for name in CORRUPTIONS if name in shared)
    return set_title(names), names


def corrupt_rms(run: FinishedRun, corruption_set: str) -> float | None:
    """The corrupt RMS calibration error, if it is of this set."""
    return run.rms["corrupt"] if run.rms["corruption_set"] == corruption_set else None

"""The page's heat maps as data: corruption x severity of each experiment, and the difference of two. Fractions in 0..1.

A shade is the number of a colour in shades.py. assets/report.js computes the shades of differences in the same
way.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from typing import NamedTuple

from fastmagn.corruptions import SEVERITIES
from fastmagn.corruptions.sets import sets_to_show
from fastmagn.reporting.experiments import Experiment, Statistic, common_set
from fastmagn.reporting.names import corruption_title
from fastmagn.reporting.runs import FinishedRun
from fastmagn.reporting.shades import DIFFERENCE_STEPS, NUM_SHADES

_BOUNDS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)


class HeatRow(NamedTuple):
    """The accuracies on a corruption at severities 1 to 5, then the mean; None for what was not measured."""

    label: str
    cells: tuple[Statistic | None, ...]


class HeatMap(NamedTuple):
    """The rows of one experiment, and below them what has no severity: clean accuracy and its mCAs."""

    rows: tuple[HeatRow, ...]
    totals: tuple[tuple[str, Statistic], ...]


class Difference(NamedTuple):
    """A cell of one heat map minus the same cell of another, a fraction, and its shade, 0..2 * DIFFERENCE_STEPS."""

    value: float
    shade: int


def heat_map(experiment: Experiment, measured: Mapping[str, Sequence[int]]) -> HeatMap:
    """The heat map of an experiment, with a row for each corruption in `measured`: its severities are for the mean."""
    rows = []
    for name, severities in measured.items():
        cells = [experiment.statistic(_cell(name, place)) for place in range(len(SEVERITIES))]
        mean = experiment.statistic(methodcaller("mean", name, severities))
        rows.append(HeatRow(corruption_title(name), (*cells, mean)))
    totals = [("Clean", experiment.statistic(lambda run: run.clean_accuracy))]
    for name, members in sets_to_show(experiment.measured).items():
        totals.append((f"mCA {name}", experiment.statistic(methodcaller("mca", members))))
    return HeatMap(tuple(rows), tuple((label, cell) for label, cell in totals if cell is not None))


def _cell(name: str, place: int) -> Callable[[FinishedRun], float | None]:
    return lambda run: run.corruption_accuracy.get(name, (None,) * len(SEVERITIES))[place]


def darkest(maps: Sequence[HeatMap]) -> float:
    """The accuracy of the darkest shade: the lowest of all cells, rounded down to a tenth, at most 0.9."""
    values = [cell.mean for heat in maps for row in heat.rows for cell in row.cells if cell is not None]
    return min(0.9, math.floor(10 * min(values)) / 10)


def shade(accuracy: float, lowest: float) -> int:
    """The shade, 0..NUM_SHADES - 1, of an accuracy in lowest..1."""
    return min(NUM_SHADES - 1, max(0, int(NUM_SHADES * (accuracy - lowest) / (1 - lowest))))


def difference_map(ours: HeatMap, base: HeatMap) -> tuple[list[tuple[str, list[Difference | None]]], float]:
    """The label and the differences of each row, and the bound that the strongest shades stand for.

    The bound is a round number, no smaller than any difference. Both maps must have the same rows.
    """
    values: list[tuple[str, list[float | None]]] = []
    for row, other in zip(ours.rows, base.rows, strict=True):
        pairs = zip(row.cells, other.cells, strict=True)
        values.append((row.label, [a.mean - b.mean if a and b else None for a, b in pairs]))
    largest = max((abs(value) for _, line in values for value in line if value is not None), default=0.0)
    bound = next((bound for bound in _BOUNDS if largest <= bound), 1.0)
    rows = [
        (label, [None if value is None else Difference(value, _difference_shade(value, bound)) for value in line])
        for label, line in values
    ]
    return rows, bound


def _difference_shade(value: float, bound: float) -> int:
    steps = math.floor(DIFFERENCE_STEPS * value / bound + 0.5)
    return DIFFERENCE_STEPS + max(-DIFFERENCE_STEPS, min(DIFFERENCE_STEPS, steps))


def chosen_pair(experiments: Sequence[Experiment]) -> tuple[int, int]:
    """The two experiments that the page shows first: the best by mCA, and standard on its network, or else another."""
    _, names = common_set(experiments)

    def merit(i: int) -> float:
        cell = experiments[i].statistic(lambda run: run.mca(names) if names else run.clean_accuracy)
        return cell.mean if cell else 0.0

    best = max(range(len(experiments)), key=merit)
    network = experiments[best].network

    def closeness(i: int) -> tuple[bool, bool, int]:
        return (experiments[i].network != network, experiments[i].method != "standard", i)

    others = [i for i in range(len(experiments)) if i != best]
    return best, min(others, key=closeness, default=best)

"""The report's first lines: in numbers, what the best method gains over standard training and what it costs."""

from collections.abc import Sequence

from fastmagn.corruptions import CORRUPTION_SETS
from fastmagn.errors import counted
from fastmagn.reporting.experiments import Experiment, Statistic, common_set
from fastmagn.reporting.names import network_title
from fastmagn.reporting.tables import by_network


def headlines(experiments: Sequence[Experiment]) -> list[str]:
    """A sentence or two for each network of one data set, and how many seeds they rest on."""
    groups = by_network(experiments)
    lines = [headline(group) for group in groups]
    if len(groups) == 1:
        return lines
    return [f"{network_title(group[0].network)}: {line}" for group, line in zip(groups, lines, strict=True)]


def headline(group: Sequence[Experiment]) -> str:
    """What one network's experiments show.

    The measure is the mCA over the corruptions that all have measured, or clean accuracy if there are none. The base is
    standard training. Methods tie if their difference, in points, rounds to 0.0.
    """
    title, names = common_set(group)
    scores = [_score(item, names) for item in group]
    what = "clean accuracy"
    if names:
        what = f"mCA {title}" if title in CORRUPTION_SETS else f"mCA over {title}"
    lacking = (
        "" if names else f" The runs share no corruption{_at_all_five(group)}, so only clean accuracy is compared."
    )
    if len(group) == 1:
        said = f"{group[0].label} reaches {_percent(scores[0])} {what}{_at_clean(group[0]) if names else ''}."
        return f"{said} {_seeds(group)}"
    top = max(score.mean for score in scores)
    best = [i for i, score in enumerate(scores) if _points(top, score.mean) == 0]
    base = next((i for i, item in enumerate(group) if item.method == "standard"), None)
    rest = sorted((i for i in range(len(group)) if i not in best), key=lambda i: -scores[i].mean)
    if base is not None and base not in best:
        said, compared = _gains(group, scores, best, base, what, bool(names)), [*best, base]
    elif len(best) == 1:
        second = rest[0]
        label = group[best[0]].label
        leader = f"No method gains over {label}: it" if base in best else label
        above = f"{_points(top, scores[second].mean):.1f} points above {group[second].label}"
        said = f"{leader} has the highest {what}, {_percent(scores[best[0]])}, {above}."
        compared = [*best, second]
    else:
        behind = f", {_points(top, scores[rest[0]].mean):.1f} points above {group[rest[0]].label}" if rest else ""
        said = f"{_listed([group[i].label for i in best])} tie at {_percent(scores[best[0]])} {what}{behind}."
        compared = best + rest[:1]
    return f"{said}{lacking} {_seeds([group[i] for i in compared])}{_within_spread(scores, compared)}"


def _at_all_five(group: Sequence[Experiment]) -> str:
    """What "no corruption" leaves out: those that all runs have, but some run not at every severity."""
    measured = [
        {name for name, cells in run.corruption_accuracy.items() if any(cell is not None for cell in cells)}
        for item in group
        for run in item.runs
    ]
    return " at all five severities" if set.intersection(*measured) else ""


def _gains(
    group: Sequence[Experiment], scores: Sequence[Statistic], best: Sequence[int], base: int, what: str, costs: bool
) -> str:
    """What the best experiments gain over the base and, if `costs`, what that does to the clean accuracy."""
    gain = f"{_points(scores[best[0]].mean, scores[base].mean):.1f} points {what} over {group[base].label}"
    cost = [_cost(group[i], group[base]) if costs else "" for i in best]
    if len(best) == 1:
        return f"{group[best[0]].label} gains {gain}{' and ' * costs}{cost[0]}."
    labels = [group[i].label for i in best]
    each = "; ".join(f"{label} {cost}" for label, cost in zip(labels, cost, strict=True))
    return f"{_listed(labels)} tie: they gain {gain}{f' ({each})' if costs else ''}."


def _cost(ours: Experiment, base: Experiment) -> str:
    points = _points(_clean(ours).mean, _clean(base).mean)
    if points == 0:
        return "keeps the clean accuracy"
    return f"{'costs' if points < 0 else 'gains'} {abs(points):.1f} clean"


def _at_clean(item: Experiment) -> str:
    return f" and {_percent(_clean(item))} clean"


def _score(item: Experiment, names: Sequence[str]) -> Statistic:
    score = item.statistic(lambda run: run.mca(names)) if names else _clean(item)
    assert score is not None  # all runs have measured `names`
    return score


def _clean(item: Experiment) -> Statistic:
    clean = item.statistic(lambda run: run.clean_accuracy)
    assert clean is not None
    return clean


def _points(one: float, other: float) -> float:
    """Their difference in percentage points, to one decimal."""
    return round(100 * (one - other), 1)


def _percent(score: Statistic) -> str:
    return f"{100 * score.mean:.1f} %"


def _listed(labels: Sequence[str]) -> str:
    return f"{', '.join(labels[:-1])} and {labels[-1]}"


def _seeds(compared: Sequence[Experiment]) -> str:
    """How many seeds the comparison rests on."""
    numbers = [len(item.runs) for item in compared]
    if set(numbers) == {1}:
        return f"This rests on one seed{' each' if len(compared) > 1 else ''}."
    if len(set(numbers)) == 1:
        return f"Means over {counted(numbers[0], 'seed')}{' each' if len(compared) > 1 else ''}."
    each = ", ".join(
        f"{item.label} on {counted(number, 'seed')}" for item, number in zip(compared, numbers, strict=True)
    )
    return f"This rests on different numbers of seeds: {each}."


def _within_spread(scores: Sequence[Statistic], compared: Sequence[int]) -> str:
    """A warning if the first and the last one differ by no more than their seeds do."""
    first, last = scores[compared[0]], scores[compared[-1]]
    if first.sd is None or last.sd is None or abs(first.mean - last.mean) > first.sd + last.sd:
        return ""
    return f" The difference is within the spread of the seeds (± {100 * first.sd:.1f} and ± {100 * last.sd:.1f})."

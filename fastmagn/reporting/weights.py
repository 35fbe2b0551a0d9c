"""Measured weights of others: what their results say of the file, and their titles in a report.

Nothing is known of their training. The configuration beside such results says how they were measured only.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fastmagn.errors import InputError

_WEIGHTS = " (weights)"
_MOST_PARTS = 20  # of a path that a title shows


class MeasuredWeights(NamedTuple):
    """Weights from a file.

    Args:
        file: The file's absolute path, in older results the path that the evaluation was given; or the name of a
            published model.
        place: Where the file is, so that two of the same name are two.
        mean: What was subtracted from each channel, pixels in [0, 1]; empty if the results do not say.
        std: What it was then divided by; empty likewise.
    """

    file: str
    place: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def read_weights(results: dict[str, Any], file: Path) -> MeasuredWeights | None:
    """What the results in `file` say of the weights; None for those of a run.

    Raises:
        InputError: They are not what an evaluation writes.
    """
    if "weights_file" not in results:
        return None
    name, normalisation = results["weights_file"], results.get("normalisation", {})
    channels: list[Any] = [None]
    if isinstance(normalisation, dict):
        channels = [normalisation.get(part, []) for part in ("mean", "std")]
    if not isinstance(name, str) or not name or not all(map(_are_channels, channels)):
        raise InputError(
            f"{file}: weights_file, normalisation: got {str(name)[:40]!r}, {str(normalisation)[:40]!r}; expected a"
            " file's name, and three numbers each for mean and std. Measure the weights again."
        )
    beside = file.parent / Path(name).name  # a relative path holds in the folder of that evaluation only
    is_found = os.path.isabs(name) and os.path.isfile(name)
    place = os.path.realpath(beside if os.path.isfile(beside) and not is_found else name)
    return MeasuredWeights(name, place, *(tuple(values) for values in channels))


def _are_channels(values: Any) -> bool:
    return values == [] or (
        isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)
    )


def weights_method(name: str) -> str:
    """What stands for the method of weights whose results name the method `name`: never a method of fastmagn's."""
    return f"{name}{_WEIGHTS}"


def named_method(method: str) -> str:
    """What results of weights call their method; another method is itself."""
    return method.removesuffix(_WEIGHTS)


def weights_titles(named: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The title of each (method, place): the method; for several files of one method also where each of them is."""
    places: dict[str, list[str]] = {}
    for method, place in dict.fromkeys(named):
        places.setdefault(method, []).append(place)
    titles = {}
    for method, found in places.items():
        tails = _tails(found)
        for place in found:
            titles[method, place] = f"{method.removesuffix(')')} {tails[place]})" if len(found) > 1 else method
    return titles


def _tails(places: list[str]) -> dict[str, str]:
    """The shortest ends of these paths that tell them apart, of at least folder and file."""
    for number in range(2, _MOST_PARTS):
        tails = {place: "/".join(Path(place).parts[-number:]) for place in places}
        if len(set(tails.values())) == len(places):
            return tails
    return {place: place for place in places}

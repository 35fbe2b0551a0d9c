"""What results.json holds beside accuracy and calibration, checked: perturbations, Fourier map, adapted statistics."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fastmagn.corruptions import PERTURBATIONS
from fastmagn.errors import InputError, counted
from fastmagn.evaluation.metrics.accuracy import mean_cbar_accuracy, mean_corruption_accuracy

_MAX_FRAMES, _MAX_SIDE = 1000, 63


class FourierWay(NamedTuple):
    """How a Fourier heat map was measured: maps are compared if they have the same norm and number of images."""

    norm: float
    num_images: int


class Protocols(NamedTuple):
    """The entries of results.json; None where one was not measured. Fractions in 0..1; None for what was not finite.

    Args:
        perturbations: See `evaluation.perturbations.evaluate_perturbations`.
        fourier: See `evaluation.fourier.evaluate_fourier`.
        adapted_batch_norm: See `evaluation.protocols.evaluate_adapted`.
    """

    perturbations: dict[str, Any] | None = None
    fourier: dict[str, Any] | None = None
    adapted_batch_norm: dict[str, Any] | None = None

    @property
    def flip_probability(self) -> float | None:
        return None if self.perturbations is None else self.perturbations["mean_flip_probability"]

    @property
    def fourier_error(self) -> float | None:
        return None if self.fourier is None else self.fourier["mean_error"]

    @property
    def are_stored(self) -> bool | None:
        """Whether the perturbation sequences are of a -P set, and not made by fastmagn; their flips are not alike."""
        return None if self.perturbations is None else "dir" in self.perturbations.get("source", {})

    @property
    def fourier_way(self) -> FourierWay | None:
        return None if self.fourier is None else FourierWay(self.fourier["norm"], self.fourier.get("num_images", 0))

    @property
    def adapted_clean(self) -> float | None:
        return None if self.adapted_batch_norm is None else self.adapted_batch_norm["clean_accuracy"]

    @property
    def adapted_batch(self) -> str:
        return "–" if self.adapted_batch_norm is None else str(self.adapted_batch_norm["batch_size"])

    @property
    def adapted_cbar_mca(self) -> float | None:
        """The mean accuracy over C-bar's ten with adapted batch normalisation; None without them."""
        return mean_cbar_accuracy(self.adapted_batch_norm["corruption_accuracy"]) if self.adapted_batch_norm else None

    def adapted_mca(self, names: Iterable[str]) -> float | None:
        """The mean accuracy over the corruptions `names` with adapted batch normalisation; None without all of them."""
        if self.adapted_batch_norm is None:
            return None
        return mean_corruption_accuracy(self.adapted_batch_norm["corruption_accuracy"], names)


NONE = Protocols()


def fourier_titles(ways: Iterable[FourierWay | None]) -> dict[FourierWay, str]:
    """The title of each way: "norm 4", or "norm 4, 500 images" where several ways have that norm.

    A run without a heat map has None for its way, which gets no title.
    """
    found = sorted({way for way in ways if way is not None})
    norms = Counter(way.norm for way in found)
    return {
        way: f"norm {way.norm:g}" + (f", {counted(way.num_images, 'image', ',')}" if norms[way.norm] > 1 else "")
        for way in found
    }


def read_protocols(results: dict[str, Any], file: Path) -> Protocols:
    """The entries that the results hold.

    Raises:
        InputError: One is damaged.
    """
    found = {}
    for name, is_whole in (
        ("perturbations", _is_perturbations),
        ("fourier", _is_fourier),
        ("adapted_batch_norm", _is_adapted),
    ):
        entry = results.get(name)
        if entry is None:
            continue
        try:
            whole = is_whole(entry)
        except (KeyError, TypeError, AttributeError, ValueError):
            whole = False
        if not whole:
            raise InputError(f"{file}: {name}: is damaged; expected what an evaluation writes. Measure it again.")
        found[name] = entry
    return Protocols(**found)


def _is_perturbations(entry: dict[str, Any]) -> bool:
    names, by_frame = entry["flip_probability"], entry["flips_by_frame"]
    curves = [curve for curve in by_frame.values() if curve is not None]
    return (
        set(names) == set(by_frame) <= set(PERTURBATIONS)
        and isinstance(entry.get("source", {}), dict)
        and all(map(_is_fraction, [*names.values(), entry["mean_flip_probability"]]))
        and all(
            0 < len(curve) < _MAX_FRAMES and None not in curve and all(map(_is_fraction, curve)) for curve in curves
        )
    )


def _is_fourier(entry: dict[str, Any]) -> bool:
    side, error, norm = len(entry["frequencies"]), entry["error"], entry["norm"]
    return (
        0 < side <= _MAX_SIDE
        and entry["frequencies"] == list(range(-(side // 2), side - side // 2))
        and len(error) == side
        and all(len(row) == side and all(map(_is_fraction, row)) for row in error)
        and _is_fraction(entry["mean_error"])
        and (entry["mean_error"] is None) == any(None in row for row in error)
        and type(norm) in (int, float)
        and math.isfinite(norm)
        and type(entry.get("num_images", 0)) is int
    )


def _is_adapted(entry: dict[str, Any]) -> bool:
    table = entry["corruption_accuracy"]
    batch_size = entry["batch_size"]
    if type(batch_size) is not int or batch_size < 1:
        return False
    return _is_fraction(entry["clean_accuracy"]) and all(
        isinstance(name, str) and len(values) == 5 and all(map(_is_fraction, values)) for name, values in table.items()
    )


def _is_fraction(value: Any) -> bool:
    """Whether it is a number in 0..1, or None."""
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)

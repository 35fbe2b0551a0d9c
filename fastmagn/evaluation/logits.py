"""Stored logits: a folder from which every measure can be computed again without the model.

    labels.npy          int64 [M]
    clean.npy           float32 [1, M, K]
    <corruption>.npy    float32 [S, M, K], severities 1 to 5
    severities.json     which severities a corruption has, if not all five, such as {"fog": [1, 3]}
    measures.json       the measures that only some sets have: ["mce_alexnet"]; none without this file

Shape letters: M images, S severities, K classes.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from fastmagn.corruptions import SEVERITIES
from fastmagn.corruptions.sets import in_order
from fastmagn.data.arrays import open_array
from fastmagn.errors import InputError, one_line
from fastmagn.machine.files import check_room, replace_folder, write_json
from fastmagn.machine.processes import World
from fastmagn.runs.reading import strict_json

_SEVERITIES, _MEASURES = "severities.json", "measures.json"
MCE_ALEXNET = "mce_alexnet"


class _Discarded(Exception):
    pass


class LogitsWriter:
    """Writes the cells of a logits folder; made by `write_logits`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = ""
        self._cells: dict[int, np.ndarray] = {}  # severity -> the logits of the corruption at hand
        self._few: dict[str, list[int]] = {}
        self.is_discarded = False

    def write(self, name: str, severity: int, logits: np.ndarray) -> None:
        """Keep a cell's logits, float32 [M, K]. A corruption's severities come in order; the severity of clean is 0."""
        if name != self._name:
            self._save_cells()
            self._name = name
        self._cells[severity] = logits

    def finish(self) -> None:
        """Write what has been kept in memory."""
        self._save_cells()
        if self._few:
            write_json(self._folder / _SEVERITIES, self._few)

    def _save_cells(self) -> None:
        if not self._cells:
            return
        _save(self._folder / f"{self._name}.npy", np.stack(list(self._cells.values())))
        if self._name != "clean" and len(self._cells) < len(SEVERITIES):
            self._few[self._name] = list(self._cells)
        self._cells.clear()

    def discard(self) -> None:
        """Discard the folder when the block ends."""
        self.is_discarded = True


def logits_bytes(num_cells: int, num_images: int, num_classes: int) -> int:
    """How much a logits folder takes; its other files are small."""
    return num_cells * num_images * num_classes * np.dtype(np.float32).itemsize


def check_logits_room(folder: Path, num_bytes: int, world: World, *, follows_link: bool = True) -> None:
    """Check that a logits folder has room beside an older one, which stays until it is whole. All processes take part.

    Args:
        folder: The folder.
        num_bytes: What is written to it.
        world: The processes.
        follows_link: If it is a link, whether the folder that it leads to is replaced; else the link itself is moved.

    Raises:
        InputError: It has none.
    """

    def check() -> None:
        try:
            check_room((Path(os.path.realpath(folder)) if follows_link else folder).parent, num_bytes)
        except OSError as error:
            raise InputError(
                f"eval.save_logits: the logits cannot be stored in {folder} ({error.strerror}). Make room, or leave"
                " eval.save_logits off."
            ) from error

    world.together(lambda: check() if world.rank == 0 else None)


@contextmanager
def write_logits(folder: Path, labels: np.ndarray, measures: Iterable[str] = ()) -> Iterator[LogitsWriter]:
    """Write a logits folder, which appears when the block ends and replaces an older one.

    If the block fails or discards it, nothing is left of it, and an older folder stays. The files are flushed to disk:
    results.json, which is written later, must not outlive them in a power cut.

    Args:
        folder: The folder.
        labels: int64 [M].
        measures: What `read_measures` will return.
    """
    with suppress(_Discarded), replace_folder(folder) as partial:
        _save(partial / "labels.npy", labels)
        if measures := list(measures):
            write_json(partial / _MEASURES, measures)
        writer = LogitsWriter(partial)
        yield writer
        if writer.is_discarded:
            raise _Discarded
        writer.finish()


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())


def read_logits(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels int64 [M], and the logits by name, `clean` first: float32 [S, M, K], mapped from their files.

    `read_severities` says which severities they are.

    Raises:
        InputError: A file is missing or damaged, or does not fit the labels.
    """
    missing = "a folder of logits, as --save_logits leaves it, holds labels.npy, clean.npy and <corruption>.npy."
    remedy = "Store the logits again."
    labels = open_array(folder / "labels.npy", missing, remedy)
    names = in_order({path.stem for path in folder.glob("*.npy")} - {"labels", "clean"})
    if not names:
        raise InputError(f"{folder}: holds no corruption's logits; {missing}")
    logits = {name: open_array(folder / f"{name}.npy", missing, remedy) for name in ("clean", *names)}
    if labels.ndim != 1 or len(labels) == 0 or logits["clean"].ndim != 3:
        got = f"labels.npy {list(labels.shape)} and clean.npy {list(logits['clean'].shape)}"
        raise InputError(f"{folder}: got {got}; expected [M] and [1, M, K], M at least 1. {remedy}")
    num_classes = logits["clean"].shape[-1]
    severities = read_severities(folder, names)
    for name, array in logits.items():
        shape = (1 if name == "clean" else len(severities[name]), len(labels), num_classes)
        if array.shape != shape or array.dtype != np.float32:
            got = f"{array.dtype} {list(array.shape)}"
            raise InputError(f"{folder / name}.npy: got {got}; expected float32 {list(shape)}. {remedy}")
    if labels.dtype != np.int64 or labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(f"{folder / 'labels.npy'}: expected int64 labels 0..{num_classes - 1}. {remedy}")
    return np.array(labels), logits


def read_severities(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The severities of each corruption of a folder of logits, ascending.

    Raises:
        InputError: The file that names them is damaged.
    """
    allowed = [tuple(chosen) for n in range(1, 5) for chosen in combinations(SEVERITIES, n)]

    def is_right(value: Any) -> bool:
        return isinstance(value, dict) and all(tuple(few) in allowed for few in value.values())

    few = _read_json(folder / _SEVERITIES, is_right, "an object of ascending severities 1 to 5") or {}
    return {name: tuple(few.get(name, SEVERITIES)) for name in names}


def read_measures(folder: Path) -> list[str]:
    """The measures of a folder of logits that only some sets have.

    Raises:
        InputError: The file that names them is damaged.
    """
    measures: list[str] = _read_json(folder / _MEASURES, lambda value: value == [MCE_ALEXNET], f'["{MCE_ALEXNET}"]')
    return measures or []


def _read_json(path: Path, is_right: Callable[[Any], bool], expected: str) -> Any:
    """What the file holds; None if there is none."""
    if not path.exists():
        return None
    try:
        value = strict_json(path.read_text())
        if not is_right(value):
            raise ValueError(f"expected {expected}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}). Store the logits again.") from error
    return value

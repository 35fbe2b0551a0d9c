"""Stored logits: a folder from which every measure can be computed again without the model.

    labels.npy          int64 [M]
    clean.npy           float32 [1, M, K]
    <corruption>.npy    float32 [5, M, K], severities 1 to 5

Shape letters: M images, K classes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from fastmagn.corruptions import CORRUPTIONS, SEVERITIES
from fastmagn.data.arrays import open_array
from fastmagn.errors import InputError
from fastmagn.machine.files import replace_folder


class _Discarded(Exception):
    pass


class LogitsWriter:
    """Writes the cells of a logits folder; made by `write_logits`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._severities: list[np.ndarray] = []
        self.is_discarded = False

    def write(self, name: str, severity: int, logits: np.ndarray) -> None:
        """Keep a cell's logits, float32 [M, K]. The severities of a corruption come in order, 1 to 5; `clean` has 0."""
        self._severities.append(logits)
        if name == "clean" or severity == SEVERITIES[-1]:
            _save(self._folder / f"{name}.npy", np.stack(self._severities))
            self._severities.clear()

    def discard(self) -> None:
        """Discard the folder when the block ends."""
        self.is_discarded = True


@contextmanager
def write_logits(folder: Path, labels: np.ndarray) -> Iterator[LogitsWriter]:
    """Write a logits folder, which appears when the block ends and replaces an older one.

    If the block fails or discards it, nothing is left of it, and an older folder stays. The files are flushed to disk:
    results.json, which is written later, must not outlive them in a power cut.

    Args:
        folder: The folder.
        labels: int64 [M].
    """
    with suppress(_Discarded), replace_folder(folder) as partial:
        _save(partial / "labels.npy", labels)
        writer = LogitsWriter(partial)
        yield writer
        if writer.is_discarded:
            raise _Discarded


def _save(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())


def read_logits(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels int64 [M], and the logits by name, `clean` first: float32 [1 or 5, M, K], mapped from their files.

    Raises:
        InputError: A file is missing or damaged, or does not fit the labels.
    """
    missing = "a folder of logits, as --save_logits leaves it, holds labels.npy, clean.npy and <corruption>.npy."
    remedy = "Store the logits again."
    labels = open_array(folder / "labels.npy", missing, remedy)
    names = [name for name in CORRUPTIONS if (folder / f"{name}.npy").exists()]
    if not names:
        raise InputError(f"{folder}: holds no corruption's logits; {missing}")
    logits = {name: open_array(folder / f"{name}.npy", missing, remedy) for name in ("clean", *names)}
    if labels.ndim != 1 or len(labels) == 0 or logits["clean"].ndim != 3:
        got = f"labels.npy {list(labels.shape)} and clean.npy {list(logits['clean'].shape)}"
        raise InputError(f"{folder}: got {got}; expected [M] and [1, M, K], M at least 1. {remedy}")
    num_classes = logits["clean"].shape[-1]
    for name, array in logits.items():
        shape = (1 if name == "clean" else len(SEVERITIES), len(labels), num_classes)
        if array.shape != shape or array.dtype != np.float32:
            got = f"{array.dtype} {list(array.shape)}"
            raise InputError(f"{folder / name}.npy: got {got}; expected float32 {list(shape)}. {remedy}")
    if labels.dtype != np.int64 or labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(f"{folder / 'labels.npy'}: expected int64 labels 0..{num_classes - 1}. {remedy}")
    return np.array(labels), logits

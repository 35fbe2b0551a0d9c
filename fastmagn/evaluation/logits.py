"""Stored logits: a folder from which every measure can be computed again without the model.

labels.npy          int64 [M]
clean.npy           float32 [1, M, K]
<corruption>.npy    float32 [5, M, K], severities 1 to 5
"""

import os
import shutil
from pathlib import Path

import numpy as np

from fastmagn.corruptions import CORRUPTIONS, SEVERITIES
from fastmagn.data.arrays import open_array
from fastmagn.errors import InputError


class LogitsWriter:
    """Writes a logits folder beside its place and puts it there when finished; an older one is replaced then."""

    def __init__(self, folder: Path, labels: np.ndarray) -> None:
        self.folder = folder
        self.partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        self.partial.mkdir(parents=True)
        self.cells: dict[str, list[np.ndarray]] = {}
        np.save(self.partial / "labels.npy", labels)

    def write(self, name: str, severity: int, logits: np.ndarray) -> None:
        """Keep a cell's logits, float32 [M, K]; severities come in order (0 for `clean`, else 1 to 5)."""
        cells = self.cells.setdefault(name, [])
        cells.append(logits)
        if name == "clean" or severity == SEVERITIES[-1]:
            np.save(self.partial / f"{name}.npy", np.stack(cells))
            cells.clear()

    def finish(self) -> None:
        """Put the whole folder in its place."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        os.replace(self.partial, self.folder)

    def discard(self) -> None:
        """Keep nothing of it; an older folder stays."""
        shutil.rmtree(self.partial)


def read_logits(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels int64 [M], and float32 [1 or 5, M, K] by name, `clean` first; mapped, not read.

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

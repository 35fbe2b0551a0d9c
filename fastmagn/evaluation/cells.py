"""What an evaluation measures: the clean images, and each corruption at five severities, stored or made here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastmagn.config.schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES, available_corruptions, corrupt
from fastmagn.data import open_corrupted
from fastmagn.data.corrupted.image_tree import open_cell, stored_corruptions
from fastmagn.data.files.on_demand import LazyImages
from fastmagn.data.image_set import Images
from fastmagn.machine.console import console

CHUNK_BYTES = 1 << 28  # of images that are corrupted at a time
KEPT_BYTES = 1 << 30  # of a rank's images: as many are decoded once and kept


class Cell(NamedTuple):
    """Images to measure: clean (severity 0), or a corruption at a severity 1..5; or some of them, if they are many.

    Args:
        name: clean, or the corruption.
        severity: 0..5.
        images_u8: uint8 [n, H, W, 3].
        is_last: Whether these are the last of their corruption and severity.
    """

    name: str
    severity: int
    images_u8: np.ndarray | LazyImages
    is_last: bool

    def readable(self) -> np.ndarray:
        """bool [M]: all images, but for files that could not be decoded; asked after they have been measured."""
        files = self.images_u8
        return files.readable() if isinstance(files, LazyImages) else np.ones(len(files), np.bool_)


def corruptions_to_measure(config: EvalConfig) -> tuple[tuple[str, ...], dict[str, Path]]:
    """The set's corruptions that can be measured, and where those stored as image files are; a warning names others."""
    names = CORRUPTION_SETS[config.corruption_set]
    if config.corrupted_dir is None:
        present, places = available_corruptions(), {}
        remedy = 'pip install "fastmagn[corruptions]" brings its pictures.'
    else:
        places = stored_corruptions(config.corrupted_dir, names)
        present = tuple(places) or names  # a set of .npy files is whole
        remedy = f"{config.corrupted_dir} does not hold them."
    missing = [name for name in names if name not in present]
    if missing:
        console.print(
            f"warning: {', '.join(missing)} left out, and with it every mCA that needs it; {remedy}", markup=False
        )
    return tuple(name for name in names if name in present), places


def cells_to_measure(
    names: Iterable[str],
    stored: Callable[[str, int], np.ndarray | LazyImages] | None,
    images_u8: Images,
    share: slice,
    config: EvalConfig,
) -> Iterator[Cell]:
    """This rank's share of the clean images, then of each corruption at severities 1 to 5, stored or made here."""
    own = images_u8[share]
    if own.nbytes <= KEPT_BYTES:
        own = np.asarray(own)
    indices = np.arange(len(images_u8))[share]
    for chunk, is_last in _chunks(own, config.batch_size):
        yield Cell("clean", 0, np.asarray(own[chunk]), is_last)
    for name in names:
        for severity in SEVERITIES:
            if stored is not None:
                yield Cell(name, severity, stored(name, severity)[share], True)
                continue
            for chunk, is_last in _chunks(own, config.batch_size):
                pixels = np.asarray(own[chunk])
                made = corrupt(pixels, name, severity, seed=config.corruption_seed, indices=indices[chunk])
                yield Cell(name, severity, made, is_last)


def _chunks(images_u8: Images, batch_size: int) -> Iterator[tuple[slice, bool]]:
    """Rows of up to CHUNK_BYTES, in whole batches where one is less than that; and whether they are the last."""
    total = len(images_u8)
    size = max(1, CHUNK_BYTES * max(total, 1) // max(images_u8.nbytes, 1))
    size = size // batch_size * batch_size or size
    for first in range(0, max(total, 1), size):
        yield slice(first, min(first + size, total)), first + size >= total


def stored_cells(
    config: EvalConfig,
    places: dict[str, Path],
    labels: np.ndarray,
    image_shape: tuple[int, ...],
    class_names: Sequence[str],
) -> Callable[[str, int], np.ndarray | LazyImages] | None:
    """(corruption, severity) -> its first M stored images, to match `labels`, int64 [M]; None where none are stored."""
    if places:
        return lambda name, severity: open_cell(places[name], severity, class_names, image_shape[0])[: len(labels)]
    if config.corrupted_dir is None:
        return None
    return lambda name, severity: open_corrupted(config.corrupted_dir, name, labels, image_shape)[severity - 1]


def made_ahead(cells: Iterator[Cell], ahead: bool) -> Iterator[Cell]:
    """The cells, the next one made on a thread while the model works on this one; on a CPU they would only compete."""
    if not ahead:
        yield from cells
        return
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, cells, None)
        while (cell := following.result()) is not None:
            following = pool.submit(next, cells, None)
            yield cell

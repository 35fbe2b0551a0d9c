"""What an evaluation measures, cell by cell.

A cell is one corruption at one severity: all test images, stored in a -C set or corrupted here. The clean images are a
cell of their own, of severity 0. Shape letters: M test images, n some of them, H W image.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastmagn.config.schema import EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, SEVERITIES, available_corruptions, corrupt, corrupted_as
from fastmagn.data import open_corrupted
from fastmagn.data.corrupted.image_tree import check_cells, open_cell, stored_corruptions
from fastmagn.data.corrupted.npy import check_source, read_manifest, recorded_as
from fastmagn.data.files.on_demand import LazyImages
from fastmagn.data.image_set import ImageRows, Images
from fastmagn.errors import InputError
from fastmagn.machine.console import warn

CHUNK_BYTES = 1 << 28  # images that are corrupted at a time
KEPT_BYTES = 1 << 30  # up to this size, a process decodes its images once and keeps them


class Corruptions(NamedTuple):
    """The corruptions that an evaluation measures, and where their images come from.

    Args:
        names: The corruptions, in the order in which they are measured.
        open_stored: (corruption, severity, share) -> the stored images of that cell in these rows of the measured ones,
            uint8 [n, H, W, 3]; None if the images are corrupted here.
        are_image_files: Whether they are stored as image files, as ImageNet-C is.
        made_as: What `corrupted_as` says of images that are made here, or that fastmagn.corrupt made; None for others.
    """

    names: tuple[str, ...]
    open_stored: Callable[[str, int, slice], Images] | None = None
    are_image_files: bool = False
    made_as: dict[str, Any] | None = None


class CellPart(NamedTuple):
    """Images of one cell: all of this process's images, or some if they are many.

    Args:
        name: The corruption, or clean.
        severity: 1..5, 0 for clean.
        images_u8: uint8 [n, H, W, 3].
        is_last: Whether these are the cell's last images.
    """

    name: str
    severity: int
    images_u8: np.ndarray | LazyImages
    is_last: bool

    def readable(self) -> np.ndarray:
        """bool [n]: False for files that could not be decoded. Known once the images have been measured."""
        images = self.images_u8
        return images.readable() if isinstance(images, LazyImages) else np.ones(len(images), np.bool_)


def find_corruptions(
    images_u8: Images,
    labels: np.ndarray,
    config: EvalConfig,
    class_names: Sequence[str],
    measured: slice | np.ndarray | None = None,
) -> Corruptions:
    """The corruptions of `eval.corruption_set` that can be measured; a warning names the others.

    Args:
        images_u8: All test images, uint8 [H, W, 3] each.
        labels: Their labels, int64.
        config: Which corruptions, and where they are stored.
        class_names: Label k is class_names[k]; a -C set of image files is matched by these.
        measured: The rows of the images that will be measured; None means the first `eval.num_images`.

    Raises:
        InputError: The -C set in `eval.corrupted_dir` does not fit the images.
    """
    names, folder = CORRUPTION_SETS[config.corruption_set], config.corrupted_dir
    if folder is None:
        remedy = 'pip install "fastmagn[corruptions]" brings its pictures.'
        made_as = corrupted_as(images_u8.shape, config.corruption_jpeg)
        return Corruptions(_present(names, available_corruptions(), remedy), made_as=made_as)
    if measured is None:
        measured = slice(0, config.num_images or len(labels))
    rows = np.arange(len(labels))[measured]
    height = images_u8.shape[1]
    places = stored_corruptions(folder, names)
    if places:
        names = _present(names, places, f"{folder} does not hold them.")
        present_classes = check_cells(places, class_names, labels)

        def open_files(name: str, severity: int, share: slice) -> LazyImages:
            return open_cell(places[name], severity, present_classes, height)[rows[share]]

        return Corruptions(names, open_files, are_image_files=True)
    held = check_source(folder, images_u8, labels)
    if isinstance(held, np.ndarray):
        places_held, stored_labels = _places(folder, held, rows), labels[held]
    else:
        if isinstance(measured, np.ndarray) and held is not None and rows.max() >= held.stop:
            raise InputError(
                f"{folder}: made of the first {held.stop} of {len(labels)} images; {np.sum(rows >= held.stop)} of the"
                f" {len(rows)} to measure, which are drawn evenly over the classes, are not among them. Make the set"
                " again of all images, or measure the first ones (evaluate_robustness: subset='first')."
            )
        places_held, stored_labels = measured, labels[: rows.max() + 1]

    def open_array(name: str, severity: int, share: slice) -> np.ndarray | ImageRows:
        cell = open_corrupted(folder, name, stored_labels, images_u8.shape[1:])[severity - 1]
        return cell[share] if isinstance(places_held, slice) else ImageRows(cell, places_held[share])

    return Corruptions(names, open_array, made_as=_made_as(folder, images_u8.shape))


def _made_as(folder: Path, shape: tuple[int, ...]) -> dict[str, Any] | None:
    """What the manifest of a set records; a warning says if its images would be made in another way now."""
    made_as = recorded_as(folder, shape)
    if made_as is not None and made_as["version"] != corrupted_as(shape, jpeg=False)["version"]:
        warn(
            f"{folder}: made by an earlier version, which corrupted images of this size in another way. Its numbers do"
            " not compare with new ones; make the set again with python -m fastmagn.corrupt."
        )
    return made_as


def _places(folder: Path, held: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The places of the test images `rows` in a set that was made of the test images `held`, which ascend."""
    missing = np.setdiff1d(rows, held)
    if len(missing):
        seed = read_manifest(folder)["subset"]["seed"]
        raise InputError(
            f"{folder}: made of {len(held)} images drawn evenly over the classes by seed {seed}; {len(missing)} of the"
            f" {len(rows)} images to measure are not among them. Measure them with --eval.num_images {len(held)} (or"
            f" fewer) --eval.corruption_seed {seed}."
        )
    return np.searchsorted(held, rows)


def cell_parts(
    corruptions: Corruptions, images_u8: Images, share: slice, config: EvalConfig, indices: np.ndarray | None = None
) -> Iterator[CellPart]:
    """A process's share of every cell: clean, then each corruption at severities 1 to 5; a cell's parts in order.

    Args:
        corruptions: What is measured besides the clean images.
        images_u8: The test images that are measured, uint8 [M, H, W, 3].
        share: The rows of this process.
        config: `batch_size`, `corruption_seed` and `corruption_jpeg`.
        indices: The sample index of each measured image, int64 [M], which keys its corruption; None means 0..M - 1.
    """
    own = images_u8[share]
    if own.nbytes <= KEPT_BYTES:
        own = np.asarray(own)
    indices = (np.arange(len(images_u8)) if indices is None else indices)[share]
    for rows, is_last in _chunks(own, config.batch_size):
        yield CellPart("clean", 0, np.asarray(own[rows]), is_last)
    for name in corruptions.names:
        for severity in SEVERITIES:
            if corruptions.open_stored is not None:
                yield CellPart(name, severity, corruptions.open_stored(name, severity, share), True)
                continue
            for rows, is_last in _chunks(own, config.batch_size):
                pixels = np.asarray(own[rows])
                keys = {"seed": config.corruption_seed, "indices": indices[rows]}
                corrupted = corrupt(pixels, name, severity, **keys, jpeg=config.corruption_jpeg)
                yield CellPart(name, severity, corrupted, is_last)


def next_on_a_thread(parts: Iterator[CellPart]) -> Iterator[CellPart]:
    """The same parts; a thread prepares the next one while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, parts, None)
        while (part := following.result()) is not None:
            following = pool.submit(next, parts, None)
            yield part


def _present(names: tuple[str, ...], available: Container[str], remedy: str) -> tuple[str, ...]:
    """The names that are available; a warning names the others and says how to get them."""
    missing = [name for name in names if name not in available]
    if missing:
        warn(f"{', '.join(missing)} left out, and with it every mCA that needs it; {remedy}")
    return tuple(name for name in names if name in available)


def _chunks(images_u8: Images, batch_size: int) -> Iterator[tuple[slice, bool]]:
    """Rows of up to CHUNK_BYTES, in whole batches unless a batch is larger; and whether they are the last ones."""
    total = len(images_u8)
    size = max(1, CHUNK_BYTES * max(total, 1) // max(images_u8.nbytes, 1))
    size = size // batch_size * batch_size or size
    for first in range(0, max(total, 1), size):
        yield slice(first, min(first + size, total)), first + size >= total

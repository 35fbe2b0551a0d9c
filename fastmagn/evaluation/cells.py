"""What an evaluation measures, cell by cell.

A cell is one corruption at one severity: all test images, stored in a -C set or corrupted here. The clean images are a
cell of their own, of severity 0. Shape letters: M test images, n some of them, H W image.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastmagn.config.corruption_sets import set_parts, severity_numbers
from fastmagn.config.eval_schema import EvalConfig
from fastmagn.corruptions import CORRUPTIONS, SEVERITIES, available_corruptions, corrupt, corrupted_as
from fastmagn.corruptions.sets import CIFAR_CBAR, IMAGENET_CBAR, set_members
from fastmagn.data import open_corrupted
from fastmagn.data.corrupted.image_tree import Cells, check_cells, open_cell, stored_trees
from fastmagn.data.corrupted.npy import LAYOUTS, check_source, read_manifest, recorded_as, stored_files
from fastmagn.data.files.on_demand import LazyImages
from fastmagn.data.image_set import ImageRows, Images, even_parts
from fastmagn.errors import InputError, some
from fastmagn.machine.console import warn

CHUNK_BYTES = 1 << 28  # images that are corrupted at a time
KEPT_BYTES = 1 << 30  # up to this size, a process decodes its images once and keeps them


class Corruptions(NamedTuple):
    """The corruptions that an evaluation measures, and where their images come from.

    Args:
        severities: The corruptions in the order in which they are measured, and the severities of each, ascending.
        open_stored: (corruption, severity, share) -> the stored images of that cell in these rows of the measured ones,
            uint8 [n, H, W, 3]; None if the images are corrupted here.
        are_image_files: Whether they are stored as image files, as ImageNet-C is.
        made_as: What `corrupted_as` says of images that are made here, or that fastmagn.corrupt made; None for others.
    """

    severities: Mapping[str, tuple[int, ...]]
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
        num_batches: In how many batches of nearly equal size they are predicted; None: in batches of `eval.batch_size`.
    """

    name: str
    severity: int
    images_u8: Images
    is_last: bool
    num_batches: int | None = None

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
    """The corruptions of `eval.corruption_set` that can be measured, at `eval.severities`; warnings name the others.

    Of a stored set these are the ones that it holds, and whatever it holds beside the known corruptions; if it holds
    none of the set's, all that it holds. Where only single corruptions are named, they are these and no others.

    Args:
        images_u8: All test images, uint8 [H, W, 3] each.
        labels: Their labels, int64.
        config: Which corruptions, and where they are stored.
        class_names: Label k is class_names[k]; a -C set of image files is matched by these.
        measured: The rows of the images that will be measured; None means the first `eval.num_images`.

    Raises:
        InputError: The -C set in `eval.corrupted_dir` does not fit the images; or there is nothing to measure.
    """
    names, folder = set_members(config.corruption_set, *images_u8.shape[1:3]), config.corrupted_dir
    chosen = severity_numbers("eval.severities", config.severities)
    if folder is None:
        remedy = 'pip install "fastmagn[corruptions]" brings its pictures.'
        available = available_corruptions()
        if not set(names) & set(available):
            raise InputError(f"eval.corruption_set: {', '.join(names)} cannot be made here; {remedy}")
        names = _present(names, available, remedy)
        made_as = corrupted_as(images_u8.shape, config.corruption_jpeg, names)
        return Corruptions(dict.fromkeys(names, chosen), made_as=made_as)
    if measured is None:
        measured = slice(0, config.num_images or len(labels))
    trees = stored_trees(folder, names if _are_single(config) else None)
    if trees:
        names = _stored(names, trees, config)
        severities = _chosen({name: tuple(trees[name]) for name in names}, chosen, folder)
        cells = {
            name: {severity: trees[name][severity] for severity in some_of} for name, some_of in severities.items()
        }
        return _of_files(cells, images_u8.shape[1], labels, class_names, measured)
    return _of_arrays(_stored(names, stored_files(folder), config), chosen, images_u8, labels, folder, measured)


def _of_files(
    trees: dict[str, Cells],
    image_size: int,
    labels: np.ndarray,
    class_names: Sequence[str],
    measured: slice | np.ndarray,
) -> Corruptions:
    """A set of image files."""
    rows, present_classes = np.arange(len(labels))[measured], check_cells(trees, class_names, labels)

    def open_files(name: str, severity: int, share: slice) -> LazyImages:
        return open_cell(trees[name][severity], present_classes, image_size)[rows[share]]

    severities = {name: tuple(cells) for name, cells in trees.items()}
    return Corruptions(severities, open_files, are_image_files=True)


def _of_arrays(
    names: tuple[str, ...],
    chosen: tuple[int, ...],
    images_u8: Images,
    labels: np.ndarray,
    folder: Path,
    measured: slice | np.ndarray,
) -> Corruptions:
    """A set of .npy files."""
    rows = np.arange(len(labels))[measured]
    held = check_source(folder, images_u8, labels)
    places_held: slice | np.ndarray
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
    num_stored = len(labels) if held is None else len(np.arange(len(labels))[held])

    def open_all(name: str) -> np.ndarray:
        return open_corrupted(folder, name, stored_labels, images_u8.shape[1:], num_stored)

    def open_array(name: str, severity: int, share: slice) -> np.ndarray | ImageRows:
        cell = open_all(name)[severity - 1]
        return cell[share] if isinstance(places_held, slice) else ImageRows(cell, places_held[share])

    severities = _chosen({name: SEVERITIES[: len(open_all(name))] for name in names}, chosen, folder)
    return Corruptions(severities, open_array, made_as=_made_as(folder, images_u8.shape, severities))


def _chosen(held: Mapping[str, Sequence[int]], chosen: tuple[int, ...], folder: Path) -> dict[str, tuple[int, ...]]:
    """Those of the chosen severities that a stored set holds of each corruption; a warning names what it lacks."""
    found = {
        name: tuple(severity for severity in chosen if severity in severities) for name, severities in held.items()
    }
    if not any(found.values()):
        numbers = ",".join(map(str, chosen))
        raise InputError(f"eval.severities: {folder} holds none of {numbers} of {some(found)}; choose those it holds.")
    few = [
        f"{name} ({', '.join(map(str, severities)) or 'none: left out'})"
        for name, severities in found.items()
        if len(severities) < len(chosen)
    ]
    if few:
        than = "five" if chosen == SEVERITIES else "the chosen"
        warn(f"fewer than {than} severities: {some(few)}; what needs the others, such as a set's mCA, is null.")
    return {name: severities for name, severities in found.items() if severities}


def _are_single(config: EvalConfig) -> bool:
    """Whether `eval.corruption_set` names single corruptions only, no set."""
    return set(set_parts("eval.corruption_set", config.corruption_set)) <= set(CORRUPTIONS)


def _stored(names: tuple[str, ...], held: Collection[str], config: EvalConfig) -> tuple[str, ...]:
    """The corruptions to measure of those that a set holds; warnings name those that are left out."""
    folder, chosen = config.corrupted_dir, config.corruption_set
    if "clean" in held or not held:
        got = "a corruption named clean, as the uncorrupted images are" if held else "no corruption"
        raise InputError(f"{folder}: holds {got}; {LAYOUTS}.")
    if _are_single(config):
        if not set(names) & set(held):
            raise InputError(f"eval.corruption_set: {folder} does not hold {some(names)}; it holds {some(held)}.")
        return _present(names, held, f"{folder} does not hold them.")
    if not set(names) & set(held):
        warn(f"{folder} holds none of {chosen}'s corruptions; all that it holds are measured: {some(held, shown=20)}.")
        return tuple(held)
    cbar = [name for name in held if name in CIFAR_CBAR + IMAGENET_CBAR and name not in names]
    is_cache = folder is not None and folder.parent == config.cache_dir
    if cbar and not is_cache:
        warn(f"{folder} also holds {some(cbar)}; --eval.corruption_set {chosen}+cbar measures them.")
    own = tuple(name for name in held if name not in CORRUPTIONS)
    return _present(names, held, f"{folder} does not hold them.") + own


def _made_as(folder: Path, shape: tuple[int, ...], names: Collection[str]) -> dict[str, Any] | None:
    """What the manifest of a set records, of these corruptions; a warning says if they would be made otherwise now."""
    made_as, now = recorded_as(folder, shape), corrupted_as(shape, False, names)
    if made_as is not None and made_as["version"] == now["version"]:
        return made_as | {"published": now["published"]}  # the set may hold others
    if made_as is not None:
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
    corruptions: Corruptions,
    images_u8: Images,
    share: slice,
    config: EvalConfig,
    indices: np.ndarray | None = None,
    num_batches: int | None = None,
) -> Iterator[CellPart]:
    """A process's share of every cell: clean, then each corruption at its severities; a cell's parts in order.

    Args:
        corruptions: What is measured besides the clean images.
        images_u8: The test images that are measured, uint8 [M, H, W, 3].
        share: The rows of this process.
        config: `batch_size`, `corruption_seed` and `corruption_jpeg`.
        indices: The sample index of each measured image, int64 [M], which keys its corruption; None means 0..M - 1.
        num_batches: In how many batches of nearly equal size a cell's images are predicted; None: of `batch_size` each.
    """
    own = images_u8[share]
    if own.nbytes <= KEPT_BYTES:
        own = np.asarray(own)
    indices = (np.arange(len(images_u8)) if indices is None else indices)[share]
    chunks = _chunks(own, config.batch_size) if num_batches is None else _even_chunks(own, num_batches)
    for rows, *of_chunk in chunks:
        yield CellPart("clean", 0, np.asarray(own[rows]), *of_chunk)
    for name, severities in corruptions.severities.items():
        for severity in severities:
            if corruptions.open_stored is not None:
                yield CellPart(name, severity, corruptions.open_stored(name, severity, share), True, num_batches)
                continue
            for rows, *of_chunk in chunks:
                pixels = np.asarray(own[rows])
                keys = {"seed": config.corruption_seed, "indices": indices[rows]}
                corrupted = corrupt(pixels, name, severity, **keys, jpeg=config.corruption_jpeg)
                yield CellPart(name, severity, corrupted, *of_chunk)


def next_on_a_thread(parts: Iterator[CellPart]) -> Iterator[CellPart]:
    """The same parts; a thread prepares the next one while the caller works on this one."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, parts, None)
        while (part := following.result()) is not None:
            following = pool.submit(next, parts, None)
            yield part


def _present(names: tuple[str, ...], available: Collection[str], remedy: str) -> tuple[str, ...]:
    """The names that are available; a warning names the others and says how to get them."""
    missing = [name for name in names if name not in available]
    if missing:
        warn(f"{', '.join(missing)} left out, and with it every mCA that needs it; {remedy}")
    return tuple(name for name in names if name in available)


def _num_at_once(images_u8: Images) -> int:
    """How many of these images take up to CHUNK_BYTES together; at least 1."""
    return max(1, CHUNK_BYTES * max(len(images_u8), 1) // max(images_u8.nbytes, 1))


def _chunks(images_u8: Images, batch_size: int) -> list[tuple[slice, bool, None]]:
    """Rows of up to CHUNK_BYTES, in whole batches unless a batch is larger; whether they are the last ones; None."""
    total, size = len(images_u8), _num_at_once(images_u8)
    size = size // batch_size * batch_size or size
    starts = range(0, max(total, 1), size)
    return [(slice(first, min(first + size, total)), first + size >= total, None) for first in starts]


def _even_chunks(images_u8: Images, num_batches: int) -> list[tuple[slice, bool, int]]:
    """As `_chunks`, of batches whose sizes differ by at most one; and how many batches they are, at least one."""
    batches = even_parts(len(images_u8), num_batches)
    step = max(1, _num_at_once(images_u8) // max(1, batches[0].stop))
    groups = [batches[first : first + step] for first in range(0, num_batches, step)]
    return [(slice(group[0].start, group[-1].stop), group[-1] is batches[-1], len(group)) for group in groups]

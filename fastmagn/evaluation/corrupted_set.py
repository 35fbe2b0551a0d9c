"""Make a -C set of any test images, or verify one that was made.

Shape letters: N test images, H W image.
"""

import dataclasses
import hashlib
import io
import math
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import features
from rich.progress import Progress, TaskID

from fastmagn.config.schema import DataConfig
from fastmagn.corruptions import SEVERITIES, corrupt, corrupted_as
from fastmagn.corruptions.sets import set_members
from fastmagn.data import DATASETS, ENCODED, load_test
from fastmagn.data.corrupted.npy import (
    MANIFEST,
    MANIFEST_FORMAT_VERSION,
    check_files,
    check_source,
    read_manifest,
    source_digests,
)
from fastmagn.data.files.decoded_once import decoded_once, stored_bytes
from fastmagn.data.files.decoding import shorter_side_px
from fastmagn.data.image_set import Images, rows_within
from fastmagn.errors import InputError, check, counted
from fastmagn.evaluation.corrupt_config import CorruptConfig
from fastmagn.evaluation.subset import Subset, subset_of
from fastmagn.machine.console import progress_bar
from fastmagn.machine.environment import environment, found
from fastmagn.machine.files import make_folder, replace_folder, why_not_writable, write_json
from fastmagn.machine.leftovers import remove_leftovers
from fastmagn.machine.waiting_lock import waiting_lock
from fastmagn.registry import resolve
from fastmagn.warming.ahead import compile_ahead
from fastmagn.warming.kernels import corruption_groups

_CHUNK_BYTES = 1 << 25
# Chunks made while others are written: flushing a file of 150 MB takes as long as making one or two of them.
_CHUNKS_AHEAD = 2
_MANIFEST_BYTES = 1 << 16  # room for it, more than it takes
_TRAINERS_NAMES = re.compile(r"\bdata\.(dir|name|download|test_shards|image_column|label_column)\b")
_OPTIONS = {"dir": "data_dir", "name": "dataset"}  # others have the same name here


class NotStored(InputError):
    """A set cannot be stored: the disk has no room for it, or fails, or the folder is read-only.

    Args:
        reason: What is wrong, with the place.
        advice: What the user of fastmagn.corrupt may do; an evaluation has other options.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"out: {reason}{advice}")
        self.reason = reason


class SourceImages(NamedTuple):
    """The test images that a set is made of.

    Args:
        images_u8: uint8 [N, H, W, 3].
        labels: int64 [N].
        class_names: Label k is class_names[k].
        indices: int64 [N], their rows among all test images, which key their corruptions; None means 0..N - 1.
        subset: How they were chosen, for the manifest; see `Subset.record`.
    """

    images_u8: Images
    labels: np.ndarray
    class_names: tuple[str, ...]
    indices: np.ndarray | None = None
    subset: Mapping[str, Any] = MappingProxyType({})


def make_corrupted_set(
    config: CorruptConfig, announce: Callable[[str], None] = lambda line: None, source: SourceImages | None = None
) -> dict[str, Any]:
    """Make the -C set `config.out`: <corruption>.npy, labels.npy and manifest.json, in the published layout.

    <corruption>.npy is uint8 [5*N, H, W, 3]; rows (s-1)*N..s*N-1 are severity s, in the test images' order. labels.npy
    holds the N labels five times over, uint8 as in the published sets (int64 for more than 256 classes). All files are
    written in a folder beside `out`. It is renamed to `out` once it is whole, and removed if something fails before.
    Image files are decoded once, into a file there that takes as much room as one severity of one corruption. So the
    images in memory at a time are a few chunks of 32 MiB, however many there are.

    Args:
        config: What to make.
        announce: Called with a line of text at the start and after each corruption.
        source: The test images; None reads those that `config` names.

    Returns:
        The manifest.

    Raises:
        NotStored: The disk is too small, or fails, or `out` cannot be written.
        InputError: `out` is taken or is being made by another process; or the images cannot be read or corrupted.
    """
    out = Path(os.path.realpath(config.out))  # resolve() would raise for a loop of links, which has its own message
    remove_leftovers(out)
    _check_out_is_free(out)
    for folder in (out.parent, out):
        reason = why_not_writable(out, folder)
        if reason is not None:
            raise NotStored(reason, "; name another --out.")
    source = source or load_source_images(config)
    image_shape = source.images_u8.shape[1:]
    names = set_members(config.corruption_set, *image_shape[:2])
    needed = len(names) * (len(_npy_header(_file_shape(source))) + len(SEVERITIES) * source.images_u8.nbytes)
    needed += len(_labels_npy(source)) + _MANIFEST_BYTES
    images = counted(len(source.labels), "image", ",")
    total = f"{counted(len(names), 'corruption')} x {len(SEVERITIES)} severities x {images}"
    announce(f"{config.dataset}: {total}, {needed / 1e6:,.0f} MB; the first run compiles for up to a minute")
    compile_ahead(corruption_groups(names), lambda: None)
    for name in names:  # a corruption that cannot be made (no frost pictures, say) fails now, not after an hour
        corrupt(np.zeros((1, *image_shape), np.uint8), name, SEVERITIES[0], seed=config.seed)
    try:
        make_folder(out.parent)
        with _only_maker(out), replace_folder(out, overwrite=False) as folder:
            _check_disk(out, needed + stored_bytes(source.images_u8))
            with decoded_once(source.images_u8, folder) as images_u8:
                source = source._replace(images_u8=images_u8)
                files = _write_corruptions(folder, source, names, config, announce)
                files["labels.npy"] = _write_file(folder / "labels.npy", [_labels_npy(source)])
                manifest = _manifest(config, source, files)
            write_json(folder / MANIFEST, manifest)
    except OSError as error:
        raise NotStored(
            f"{out} cannot be written ({error.strerror or error}; {needed:,} bytes are needed)",
            ". Nothing was left there; make room or give another --out.",
        ) from error
    return manifest


def load_source_images(config: CorruptConfig) -> SourceImages:
    """`num_images` test images of `config.dataset`: the first ones, or drawn evenly over the classes; see `subset_of`.

    Raises:
        InputError: They cannot be read, or there are fewer.
    """
    dataset = config.dataset
    check(dataset is not None, "dataset", None, f"one of {', '.join(DATASETS)}")
    assert dataset is not None
    with _own_options_named():
        if dataset in ENCODED:
            images_u8, class_names = resolve(ENCODED, dataset, "dataset")(_data_config(config))
            labels = images_u8.files.labels
        else:
            image_set = load_test(DataConfig(name=dataset, dir=config.data_dir or Path(), download=config.download))
            images_u8, labels, class_names = image_set.test_images_u8, image_set.test_labels, image_set.class_names
    total = len(labels)
    check(config.num_images <= total, "num_images", config.num_images, f"0..{total}, the test images there are")
    return choose_images(images_u8, labels, class_names, subset_of(dataset, config.seed), config.num_images)


@contextmanager
def _own_options_named() -> Iterator[None]:
    """Messages of what reads the images have the trainer's names of these options; here they get this command's."""
    try:
        yield
    except InputError as error:
        raise InputError(_TRAINERS_NAMES.sub(lambda name: _OPTIONS.get(name[1], name[1]), str(error))) from error


def _data_config(config: CorruptConfig) -> DataConfig:
    """The options as the trainer's, whose checks name what is missing."""
    same = ("download", "image_size", "test_shards", "image_column", "label_column")
    settings: dict[str, Any] = {name: getattr(config, name) for name in same}
    settings |= {"name": config.dataset, "dir": config.data_dir}
    settings["eval_resize_px"] = config.resize_px
    return DataConfig(**settings)


def choose_images(
    images_u8: Images, labels: np.ndarray, class_names: tuple[str, ...], subset: Subset, num_images: int
) -> SourceImages:
    """`num_images` of a data set's test images as `subset` chooses them; 0 means all."""
    rows = subset.rows(labels, num_images)
    chosen = labels[rows]
    indices = np.arange(len(labels))[rows]
    return SourceImages(images_u8[rows], chosen, class_names, indices, subset.record(len(chosen), len(labels)))


def verify_corrupted_set(config: CorruptConfig) -> list[str]:
    """Compare the set `config.out` with its manifest and, if dataset or data_dir is given, with its test images.

    Returns:
        One line for each fault; an empty list if the set is as it was made.

    Raises:
        InputError: The manifest is missing or broken, or the test images cannot be read.
    """
    manifest = read_manifest(config.out)
    total = sum(file["bytes"] for file in manifest["files"].values())
    with progress_bar() as bar:
        task = bar.add_task("bytes", total=total, status="")
        faults = check_files(config.out, lambda num_bytes: bar.update(task, advance=num_bytes))
    if config.dataset is None and config.data_dir is None:
        return faults
    made_of = manifest["dataset"]
    if config.dataset not in (None, made_of):
        return [*faults, f"{config.out}: made of {made_of}; --dataset says {config.dataset}."]
    side, resize = None, config.resize_px
    if made_of in ENCODED:
        side = manifest["image_shape"][0]
        resize = config.resize_px or manifest.get("resize_px") or side  # earlier versions' manifests have none
        if resize == shorter_side_px(side, 0):
            resize = 0  # the default may be above the largest length that can be given
    source = load_source_images(
        dataclasses.replace(config, dataset=made_of, num_images=0, image_size=side, resize_px=resize)
    )
    try:
        check_source(config.out, source.images_u8, source.labels)
    except InputError as error:
        faults.append(str(error))
    return faults


def _check_out_is_free(out: Path) -> None:
    if os.path.ismount(out):
        raise InputError(
            f"out: {out} is a mount point, which the finished set cannot be renamed to. Give a folder inside it."
        )
    if out.is_symlink():  # realpath has followed every link that leads somewhere
        raise InputError(f"out: {out} is a loop of links; expected a folder that does not exist yet.")
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; expected a folder that does not exist yet.")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"out: {out} exists and is not empty; nothing is ever overwritten. Give another --out, remove that folder,"
            " or check it with --verify."
        )


@contextmanager
def _only_maker(out: Path) -> Iterator[None]:
    """Keep other processes from making `out` meanwhile."""

    def refuse() -> None:
        raise InputError(f"out: {out} is being made by another process; wait for it, or give another --out.")

    with waiting_lock(out.with_name(f".{out.name}.lock"), refuse):
        _check_out_is_free(out)  # another process may have made it since this one looked
        yield


def _check_disk(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out.parent).free
    if free >= needed:
        return
    raise NotStored(
        f"{out.parent} has {free:,} bytes free; the set needs {needed:,}",
        ". Make room, give another --out or fewer --num_images.",
    )


def _write_corruptions(
    folder: Path, source: SourceImages, names: tuple[str, ...], config: CorruptConfig, announce: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Write <corruption>.npy for each name; returns the manifest's entry of each file, by file name."""
    shape, chunks = _file_shape(source), _chunks(source.images_u8)
    header, files = _npy_header(shape), {}
    with progress_bar() as bar, closing(_corrupt_ahead(source, chunks, names, config)) as corrupted:
        task = bar.add_task("images", total=len(names) * shape[0], status="")
        for name in names:
            start = time.perf_counter()
            parts = _show_progress(islice(corrupted, len(SEVERITIES) * len(chunks)), bar, task, name)
            files[f"{name}.npy"] = _write_file(folder / f"{name}.npy", parts, header)
            assert files[f"{name}.npy"]["bytes"] == len(header) + math.prod(shape)
            announce(f"{name}: {counted(shape[0], 'image', ',')} in {time.perf_counter() - start:.1f} s")
    return files


def _chunks(images_u8: Images) -> list[slice]:
    size = rows_within(images_u8, _CHUNK_BYTES)
    return [slice(first, min(first + size, len(images_u8))) for first in range(0, len(images_u8), size)]


def _corrupt_ahead(
    source: SourceImages, chunks: list[slice], names: Iterable[str], config: CorruptConfig
) -> Generator[np.ndarray, None, None]:
    """The set's rows in order, chunk by chunk, uint8 [n, H, W, 3]; a thread makes them while earlier ones are written.

    Closing the iterator stops the thread.
    """
    indices = np.arange(len(source.labels)) if source.indices is None else source.indices

    def make(name: str, severity: int, chunk: slice) -> np.ndarray:
        pixels = np.asarray(source.images_u8[chunk])
        return corrupt(pixels, name, severity, seed=config.seed, indices=indices[chunk], jpeg=config.jpeg)

    calls = (partial(make, name, severity, chunk) for name in names for severity in SEVERITIES for chunk in chunks)
    maker = ThreadPoolExecutor(1)
    try:
        pending = deque(maker.submit(call) for call in islice(calls, _CHUNKS_AHEAD))
        while pending:
            rows = pending.popleft().result()
            pending.extend(maker.submit(call) for call in islice(calls, 1))
            yield rows
    finally:
        maker.shutdown(cancel_futures=True)


def _show_progress(parts: Iterable[np.ndarray], bar: Progress, task: TaskID, name: str) -> Iterator[np.ndarray]:
    """The same arrays; the bar advances by the rows of each one once it has been used."""
    for rows in parts:
        yield rows
        bar.update(task, advance=len(rows), status=name)


def _write_file(path: Path, parts: Iterable[np.ndarray | bytes], header: bytes = b"") -> dict[str, Any]:
    """Write header and parts, and flush them to disk; returns their size and SHA-256."""
    digest = hashlib.sha256(header)
    # Written, not memory-mapped: on a full disk a mapped file ends the process with SIGBUS.
    with path.open("wb") as file:
        file.write(header)
        for part in parts:
            file.write(part)
            digest.update(part)
        file.flush()
        os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def _manifest(config: CorruptConfig, source: SourceImages, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a set was made of, how, and what its files must hold."""
    names = set_members(config.corruption_set, *source.images_u8.shape[1:3])
    resized = {}
    if config.dataset in ENCODED and config.image_size is not None:
        resized = {"resize_px": shorter_side_px(config.image_size, config.resize_px)}
    return {
        "format_version": MANIFEST_FORMAT_VERSION,
        "dataset": config.dataset,
        "num_images": len(source.labels),
        "image_shape": list(source.images_u8.shape[1:]),
        **resized,
        "seed": config.seed,
        "corruption_set": config.corruption_set,
        "corruptions": list(names),
        "corrupted_as": corrupted_as(source.images_u8.shape, config.jpeg, names),
        "class_names": list(source.class_names),
        "subset": dict(source.subset),
        "source": source_digests(source.images_u8, source.labels),
        # JPEG's pixels depend on the library that Pillow was built with.
        "environment": environment(torch.device("cpu")) | {"libjpeg_turbo": found(features.version, "libjpeg_turbo")},
        "files": files,
    }


def _file_shape(source: SourceImages) -> tuple[int, ...]:
    return (len(SEVERITIES) * len(source.labels), *source.images_u8.shape[1:])


def _labels_npy(source: SourceImages) -> bytes:
    dtype = np.uint8 if len(source.class_names) <= 256 else np.int64
    buffer = io.BytesIO()
    np.save(buffer, np.tile(source.labels, len(SEVERITIES)).astype(dtype))
    return buffer.getvalue()


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """What precedes the bytes of a C-ordered uint8 array in a .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()

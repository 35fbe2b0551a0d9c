"""Make a -C set of any test images, or check one that was made: the code of python -m fastmagn.corrupt."""

import dataclasses
import hashlib
import io
import math
import os
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import features
from rich.progress import Progress, TaskID

from fastmagn import __version__
from fastmagn.config.schema import Config, EvalConfig
from fastmagn.corruptions import CORRUPTION_SETS, MIN_SIDE_PX, SEVERITIES, corrupt
from fastmagn.data import DATASETS, load_folder_images, load_images
from fastmagn.data.corrupted.npy import (
    MANIFEST,
    MANIFEST_FORMAT_VERSION,
    check_files,
    check_source,
    read_manifest,
    source_digests,
)
from fastmagn.data.files.decoding import MAX_IMAGE_SIZE_PX, resize_px
from fastmagn.errors import InputError, check
from fastmagn.machine.console import console, progress_bar
from fastmagn.machine.environment import environment
from fastmagn.machine.files import write_json
from fastmagn.machine.processes import World

_DATASETS = tuple(dict.fromkeys((*DATASETS, "folder")))
_CHUNK_BYTES = 1 << 25
# Chunks made while others are written: an fsync of a 150 MB file takes as long as one or two of them.
_CHUNKS_AHEAD = 2
_MANIFEST_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class CorruptConfig:
    """Which -C set to make, and where.

    Args:
        out: Folder of the set; must not exist, or be empty.
        dataset: Whose test images: cifar10, cifar100, digits (needs no data_dir), or folder (data_dir/CLASS/IMAGE, or
            data_dir/val/CLASS/IMAGE where there is a val).
        data_dir: Folder that holds cifar-10-batches-py or cifar-100-python, or the class folders.
        download: Fetch a CIFAR set that is absent into data_dir.
        num_images: First so many test images, 0 for all.
        seed: Seed of the corruptions, 0..2^64 - 1.
        corruption_set: c19 (all), c18 (without gaussian_noise, the paper's), c15 (the usual benchmark's).
        image_size: For dataset folder: side of the square images in px, 8..4096; the centre is kept.
        resize_px: For dataset folder: the shorter side before the centre is cut out, image_size..4096 px; 0 means
            image_size. fastmagn.train's images of 224 px are cut out of 256.
    """

    out: Path
    dataset: str | None = None
    data_dir: Path | None = None
    download: bool = False
    num_images: int = 0
    seed: int = 0
    corruption_set: Literal["c19", "c18", "c15"] = "c19"
    image_size: int | None = None
    resize_px: int = 0

    def __post_init__(self) -> None:
        known = self.dataset is None or self.dataset in _DATASETS
        check(known, "dataset", self.dataset, f"one of {', '.join(_DATASETS)}")
        needs_dir = self.dataset not in (None, "digits") and self.data_dir is None
        check(not needs_dir, "data_dir", None, f"the folder of {self.dataset}'s files (digits needs none)")
        check(self.num_images >= 0, "num_images", self.num_images, "0 (all) or more")
        check(0 <= self.seed < 2**64, "seed", self.seed, "0..2^64 - 1")
        if self.dataset == "folder":
            in_range = self.image_size is not None and MIN_SIDE_PX <= self.image_size <= MAX_IMAGE_SIZE_PX
            check(in_range, "image_size", self.image_size, f"{MIN_SIDE_PX}..{MAX_IMAGE_SIZE_PX} px for dataset folder")
        elif self.dataset is not None:
            check(self.image_size is None, "image_size", self.image_size, f"none: {self.dataset} has its own")


class SourceImages(NamedTuple):
    """Test images, uint8 [M, H, W, 3], their labels, int64 [M], and the names of the K classes."""

    images_u8: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def make_corrupted_set(config: CorruptConfig, announce: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Make the -C set `config.out`: <corruption>.npy, labels.npy and manifest.json, in the published layout.

    <corruption>.npy is uint8 [5*N, H, W, 3], rows (s-1)*N..s*N-1 severity s in the test images' order; labels.npy is
    the N labels five times over, uint8 as the published ones (int64 where there are more than 256 classes). All is
    written in a folder beside `out` that is renamed at the end, and removed if the end is not reached.

    Args:
        config: What to make.
        announce: Called with a line at the start and after each corruption.

    Returns:
        The manifest.

    Raises:
        InputError: `out` is taken, the disk is too small, the images cannot be read or not be corrupted.
    """
    out = Path(os.path.realpath(config.out))  # unlike resolve, a loop of links is no error: making the folder is
    _check_out_is_free(out)
    source = load_source_images(config)
    names = CORRUPTION_SETS[config.corruption_set]
    needed = len(names) * (len(_npy_header(_file_shape(source))) + len(SEVERITIES) * source.images_u8.nbytes)
    needed += len(_labels_npy(source)) + _MANIFEST_BYTES
    cells = f"{len(names)} corruptions x {len(SEVERITIES)} severities x {len(source.labels):,}"
    announce(f"{config.dataset}: {cells} images, {needed / 1e6:,.0f} MB; the first time here, a minute of compiling")
    for name in names:  # what cannot be made (no frost pictures, too large) shows now, not after an hour
        corrupt(source.images_u8[:1], name, SEVERITIES[0], seed=config.seed)
    part = out.with_name(f"{out.name}.partial-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _check_disk(out, needed)
        part.mkdir()
        files = _write_corruptions(part, source, names, config.seed, announce)
        files["labels.npy"] = _write_file(part / "labels.npy", [_labels_npy(source)])
        manifest = _manifest(config, source, files)
        write_json(part / MANIFEST, manifest)
        _flush_folder(part)
        os.rename(part, out)
        _flush_folder(out.parent)
    except OSError as error:
        raise InputError(
            f"out: {out} cannot be written ({error.strerror or error}; {needed:,} bytes are needed). Nothing was left"
            " there; make room or give another --out."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def load_source_images(config: CorruptConfig) -> SourceImages:
    """The first `num_images` test images of `config.dataset`.

    Raises:
        InputError: They cannot be read, or there are fewer.
    """
    check(config.dataset is not None, "dataset", None, f"one of {', '.join(_DATASETS)}")
    if config.dataset == "folder":
        size = {"image_size": config.image_size, "resize_px": config.resize_px}
        images = SourceImages(*load_folder_images(config.data_dir, num_images=config.num_images, **size))
    else:
        try:
            image_set = load_images(config.dataset, config.data_dir or Path(), config.download)
        except InputError as error:  # written for the trainer's names of these options
            message = str(error).replace("data.dir", "data_dir").replace("data.download", "download")
            raise InputError(message.replace("data.name", "dataset")) from error
        images = SourceImages(image_set.test_images_u8, image_set.test_labels, image_set.class_names)
    total = len(images.labels)
    check(config.num_images <= total, "num_images", config.num_images, f"0..{total}, the test images there are")
    num_images = config.num_images or total
    return SourceImages(images.images_u8[:num_images], images.labels[:num_images], images.class_names)


def verify_corrupted_set(config: CorruptConfig) -> list[str]:
    """Compare the set `config.out` with its manifest and, where dataset or data_dir is given, with its test images.

    Returns:
        A line for each fault; empty for a set that is as it was made.

    Raises:
        InputError: No manifest, or a broken one; test images that cannot be read.
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
    side = manifest["image_shape"][0] if made_of == "folder" else None
    wanted = dataclasses.replace(config, dataset=made_of, image_size=side, num_images=0)
    images_u8, labels, _ = load_source_images(wanted)
    try:
        check_source(config.out, images_u8, labels)
    except InputError as error:
        faults.append(str(error))
    return faults


def _check_out_is_free(out: Path) -> None:
    if os.path.ismount(out):
        raise InputError(f"out: {out} is a mount point, and a set is made beside and renamed. Give a folder inside it.")
    if out.is_symlink():  # after its links were followed
        raise InputError(f"out: {out} is a loop of links; expected a folder that does not exist yet.")
    if out.exists() and not out.is_dir():
        raise InputError(f"out: {out} is a file; expected a folder that does not exist yet.")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"out: {out} exists and is not empty; nothing is ever overwritten. Give another --out, remove that folder,"
            " or check it with --verify."
        )


def _check_disk(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out.parent).free
    if free >= needed:
        return
    left = sorted(path.name for path in out.parent.iterdir() if path.name.startswith(f"{out.name}.partial-"))
    hint = f" Left by a killed run, or being made by another: {', '.join(left)}." if left else ""
    raise InputError(
        f"out: {out.parent} has {free:,} bytes free; the set needs {needed:,}. Make room, give another --out or fewer"
        f" --num_images.{hint}"
    )


def _chunks(images_u8: np.ndarray) -> list[slice]:
    size = max(1, _CHUNK_BYTES // images_u8[0].nbytes)
    return [slice(first, min(first + size, len(images_u8))) for first in range(0, len(images_u8), size)]


def _corrupt_ahead(images_u8: np.ndarray, chunks: list[slice], names: Iterable[str], seed: int) -> Iterator[np.ndarray]:
    """The set's rows in order, uint8 [n, H, W, 3] at a time, made on a thread while earlier ones are written."""
    calls = (
        partial(corrupt, images_u8[chunk], name, severity, seed=seed, indices=np.arange(chunk.start, chunk.stop))
        for name in names
        for severity in SEVERITIES
        for chunk in chunks
    )
    maker = ThreadPoolExecutor(1)
    try:
        pending = deque(maker.submit(call) for call in islice(calls, _CHUNKS_AHEAD))
        while pending:
            rows = pending.popleft().result()
            pending.extend(maker.submit(call) for call in islice(calls, 1))
            yield rows
    finally:
        maker.shutdown(cancel_futures=True)


def _write_corruptions(
    folder: Path, source: SourceImages, names: tuple[str, ...], seed: int, announce: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Write <corruption>.npy for each name; what the manifest says of each file, by file name."""
    shape, chunks = _file_shape(source), _chunks(source.images_u8)
    header, files = _npy_header(shape), {}
    with progress_bar() as bar, closing(_corrupt_ahead(source.images_u8, chunks, names, seed)) as made:
        task = bar.add_task("images", total=len(names) * shape[0], status="")
        for name in names:
            start = time.perf_counter()
            parts = _following(islice(made, len(SEVERITIES) * len(chunks)), bar, task, name)
            files[f"{name}.npy"] = _write_file(folder / f"{name}.npy", parts, header)
            assert files[f"{name}.npy"]["bytes"] == len(header) + math.prod(shape)
            announce(f"{name}: {shape[0]:,} images in {time.perf_counter() - start:.1f} s")
    return files


def _following(parts: Iterable[np.ndarray], bar: Progress, task: TaskID, name: str) -> Iterator[np.ndarray]:
    """The same arrays; the bar moves on by the rows of each one that was used."""
    for rows in parts:
        yield rows
        bar.update(task, advance=len(rows), status=name)


def _write_file(path: Path, parts: Iterable[np.ndarray | bytes], header: bytes = b"") -> dict[str, Any]:
    """Write header and parts to the disk; their size and SHA-256."""
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
    return {
        "format_version": MANIFEST_FORMAT_VERSION,
        "dataset": config.dataset,
        "num_images": len(source.labels),
        "image_shape": list(source.images_u8.shape[1:]),
        "seed": config.seed,
        "corruption_set": config.corruption_set,
        "corruptions": list(CORRUPTION_SETS[config.corruption_set]),
        "class_names": list(source.class_names),
        "source": source_digests(source.images_u8, source.labels),
        # JPEG's pixels depend on the library that Pillow was built with.
        "environment": environment(torch.device("cpu")) | {"libjpeg_turbo": features.version("libjpeg_turbo")},
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
    """What comes before the bytes of a C-ordered uint8 array in a .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder as durable as their files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def use_cache(config: Config, world: World) -> EvalConfig:
    """The evaluation's config with `corrupted_dir` set to the -C set in `cache_dir`, which is made where it is absent.

    Without a cache, or with a -C set given, it is returned as it is. Rank 0 makes the set, the others wait for it.
    """
    chosen, data = config.eval, config.data
    if chosen.cache_dir is None or chosen.corrupted_dir is not None:
        return chosen
    images = f"n{chosen.num_images}" if chosen.num_images else "all"
    is_folder = data.name == "folder"
    size = f"{data.image_size}" if is_folder else ""
    name = f"{data.name}{size}-{chosen.corruption_set}-{images}-seed{chosen.corruption_seed}-fastmagn{__version__}"
    folder = chosen.cache_dir / name
    if world.rank == 0 and not folder.exists():
        wanted = CorruptConfig(
            out=folder,
            dataset=data.name,
            data_dir=data.dir,
            download=data.download,
            num_images=chosen.num_images,
            seed=chosen.corruption_seed,
            corruption_set=chosen.corruption_set,
            image_size=data.image_size if is_folder else None,
            resize_px=resize_px(data) if is_folder else 0,
        )
        make_corrupted_set(wanted, announce=console.print)
    world.gather(None)
    return dataclasses.replace(chosen, corrupted_dir=folder)

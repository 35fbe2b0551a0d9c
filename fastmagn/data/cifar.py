"""CIFAR-10 and CIFAR-100, read from their published Python layouts.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html describes the files.
"""

import dataclasses
import shutil
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastmagn.data.image_set import ImageSet
from fastmagn.data.plain_pickle import read_plain_pickle
from fastmagn.errors import InputError, MissingSplit, counted, one_line
from fastmagn.machine.files import replace_file
from fastmagn.machine.waiting_lock import waiting_lock

NO_FILES_NEEDED = ", or use --data.name digits, which needs no files"  # ends a message about a missing set

_SIDE_PX = 32
_BYTES_PER_IMAGE = 3 * _SIDE_PX * _SIDE_PX
# Published files have up to 33 bytes per image besides its pixels. In files that Python 3 has written again under
# protocol 2, a byte above 127 takes two bytes, and a file name takes an encoding call.
_MAX_FILE_BYTES_PER_IMAGE = 2 * _BYTES_PER_IMAGE + 256
_MAX_META_BYTES = 65_536
# URLError and timeouts are OSErrors; a wrong MD5 is a RuntimeError.
_DOWNLOAD_ERRORS = (OSError, RuntimeError, EOFError, tarfile.TarError, zlib.error)
_MAX_ARCHIVED_BYTES = 50_000 * _MAX_FILE_BYTES_PER_IMAGE


@dataclass(frozen=True, kw_only=True)
class CifarLayout:
    """The files of a CIFAR set, and what they must hold."""

    name: str
    title: str
    folder: str
    train_files: tuple[str, ...]
    test_file: str
    meta_file: str
    labels_key: str
    class_names_key: str
    num_classes: int
    num_images_per_train_file: int
    num_test_images: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train_files, self.test_file, self.meta_file)


# Means and standard deviations are those of the training images, as in most CIFAR code; the tests compute them again.
CIFAR10 = CifarLayout(
    name="cifar10",
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    train_files=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test_file="test_batch",
    meta_file="batches.meta",
    labels_key="labels",
    class_names_key="label_names",
    num_classes=10,
    num_images_per_train_file=10_000,
    num_test_images=10_000,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
CIFAR100 = CifarLayout(
    name="cifar100",
    title="CIFAR-100",
    folder="cifar-100-python",
    train_files=("train",),
    test_file="test",
    meta_file="meta",
    labels_key="fine_labels",
    class_names_key="fine_label_names",
    num_classes=100,
    num_images_per_train_file=50_000,
    num_test_images=10_000,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
)


def load_cifar10(folder: Path, download: bool) -> ImageSet:
    """CIFAR-10: 50,000 training and 10,000 test images of 10 classes; see `read_cifar`."""
    return read_cifar(CIFAR10, folder, download)


def load_cifar100(folder: Path, download: bool) -> ImageSet:
    """CIFAR-100 with its 100 fine labels: 50,000 training and 10,000 test images; see `read_cifar`."""
    return read_cifar(CIFAR100, folder, download)


def load_cifar10_test(folder: Path) -> ImageSet:
    """CIFAR-10's test images alone, of `test_batch` and `batches.meta`."""
    return _read_test(CIFAR10, folder)


def load_cifar100_test(folder: Path) -> ImageSet:
    """CIFAR-100's test images alone, of `test` and `meta`."""
    return _read_test(CIFAR100, folder)


def read_cifar(layout: CifarLayout, folder: Path, download: bool) -> ImageSet:
    """The set whose published folder is in `folder`; a copy with its images in another order is accepted too.

    Args:
        layout: The set.
        folder: The folder that holds `layout.folder`.
        download: Fetch the published archive into `folder` (170 MB) if a file is missing.

    Raises:
        InputError: A file is missing or differs from the published one in count, labels, shape, dtype or class names;
            or the download failed. MissingSplit if the training files alone are missing, all of them.
    """
    source = folder / layout.folder
    if download and _missing(layout, source):
        _download_once(layout, folder)
    missing = _missing(layout, source)
    if missing:
        has_test = not {layout.test_file, layout.meta_file} & set(missing)
        kind = MissingSplit if has_test and set(layout.train_files) <= set(missing) else InputError
        raise kind(
            f"data.dir: looked for {layout.title} in {source}; missing {', '.join(missing)}; expected"
            f" {', '.join(layout.files)}. Name the folder that holds {layout.folder} with --data.dir, fetch it with"
            f" --data.download true{NO_FILES_NEEDED}."
        )
    train = [_read_images(layout, source / file, layout.num_images_per_train_file) for file in layout.train_files]
    return dataclasses.replace(
        _read_test(layout, folder),
        train_images_u8=np.concatenate([images_u8 for images_u8, _ in train]),
        train_labels=np.concatenate([labels for _, labels in train]),
    )


def _read_test(layout: CifarLayout, folder: Path) -> ImageSet:
    """The test images alone. Raises as `read_cifar`."""
    source = folder / layout.folder
    class_names = _read_class_names(layout, source / layout.meta_file)
    test_images_u8, test_labels = _read_images(layout, source / layout.test_file, layout.num_test_images)
    return ImageSet(
        name=layout.name,
        class_names=class_names,
        mean=layout.mean,
        std=layout.std,
        train_images_u8=test_images_u8[:0],
        train_labels=test_labels[:0],
        test_images_u8=test_images_u8,
        test_labels=test_labels,
    )


def _missing(layout: CifarLayout, source: Path) -> list[str]:
    return [file for file in layout.files if not (source / file).is_file()]


def _download_once(layout: CifarLayout, folder: Path) -> None:
    """`_download`, unless another process does so while this one waits for it: both would write the same archive."""
    with suppress(OSError):  # the download says so
        folder.mkdir(parents=True, exist_ok=True)
    with waiting_lock(folder / f".{layout.folder}.lock"):
        if _missing(layout, folder / layout.folder):
            _download(layout, folder)


def _download(layout: CifarLayout, folder: Path) -> None:
    """Fetch the published archive with torchvision, which checks its MD5 before anything is unpacked.

    torchvision's data set classes are not used: they write wherever an archive says, and then unpickle the files.
    """
    from torchvision.datasets import CIFAR10 as TorchvisionCifar10
    from torchvision.datasets import CIFAR100 as TorchvisionCifar100
    from torchvision.datasets.utils import download_url

    published = {"cifar10": TorchvisionCifar10, "cifar100": TorchvisionCifar100}[layout.name]
    try:
        download_url(published.url, str(folder), filename=published.filename, md5=published.tgz_md5)
        _unpack(layout, folder / published.filename, folder)
    except _DOWNLOAD_ERRORS as error:
        raise InputError(
            f"data.download: {layout.title} could not be fetched from {published.url} ({one_line(error)}). Put"
            f" {layout.folder} into {folder} by hand{NO_FILES_NEEDED}."
        ) from error


def _unpack(layout: CifarLayout, archive: Path, folder: Path) -> None:
    """Write the set's files from an archive, and nothing else that the archive holds.

    Raises:
        RuntimeError: A file of the set is missing from the archive, is a link, or is too large.
    """
    with tarfile.open(archive) as opened:
        for file in layout.files:
            name = f"{layout.folder}/{file}"
            try:
                member = opened.getmember(name)
            except KeyError:
                raise RuntimeError(f"{archive.name} has no {name}") from None
            content = opened.extractfile(member) if member.isfile() else None
            if content is None or member.size > _MAX_ARCHIVED_BYTES:
                raise RuntimeError(f"{archive.name}: {name} is not a file of a CIFAR set")
            with content, replace_file(folder / layout.folder / file) as target:
                shutil.copyfileobj(content, target)


def _read_class_names(layout: CifarLayout, path: Path) -> tuple[str, ...]:
    names = _get(read_plain_pickle(path, _MAX_META_BYTES), layout.class_names_key, path)
    names = names if isinstance(names, list) else []
    names = tuple(name.decode("latin-1") if isinstance(name, bytes) else name for name in names)
    if len(names) != layout.num_classes or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{path}: {layout.class_names_key!r} holds {len(names)} names; expected {layout.num_classes} class names of"
            f" {layout.title}. Download it again."
        )
    return names


def _read_images(layout: CifarLayout, path: Path, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """A file's images, uint8 [N, 32, 32, 3], and its labels, int64 [N]."""
    content = read_plain_pickle(path, num_images * _MAX_FILE_BYTES_PER_IMAGE)
    planes_u8 = _get(content, "data", path)
    shape = (num_images, _BYTES_PER_IMAGE)
    is_array = isinstance(planes_u8, np.ndarray)
    if not is_array or planes_u8.dtype != np.uint8 or planes_u8.shape != shape:
        got = f"{planes_u8.dtype} {list(planes_u8.shape)}" if is_array else type(planes_u8).__name__
        raise InputError(f"{path}: 'data' is {got}; expected uint8 {list(shape)}. Download it again.")
    images_u8 = np.ascontiguousarray(planes_u8.reshape(num_images, 3, _SIDE_PX, _SIDE_PX).transpose(0, 2, 3, 1))
    return images_u8, _read_labels(layout, path, _get(content, layout.labels_key, path), num_images)


def _read_labels(layout: CifarLayout, path: Path, values: Any, num_images: int) -> np.ndarray:
    """Labels as int64 [N], from the published list of integers or from an array."""
    is_list = isinstance(values, list) and all(type(value) is int for value in values)
    is_array = isinstance(values, np.ndarray) and values.dtype == np.int64 and values.ndim == 1
    if not (is_list or is_array) or len(values) != num_images:
        got = counted(len(values), "entry") if is_list or is_array else "not a list of integers"
        raise InputError(
            f"{path}: {layout.labels_key!r} is {got}; expected {num_images} integer labels. Download it again."
        )
    lowest, highest = min(values), max(values)
    if lowest < 0 or highest >= layout.num_classes:
        raise InputError(
            f"{path}: {layout.labels_key!r} has labels {lowest}..{highest}; expected 0..{layout.num_classes - 1} of"
            f" {layout.title}. Download it again."
        )
    return np.array(values, dtype=np.int64)


def _get(content: dict[str, Any], key: str, path: Path) -> Any:
    if key not in content:
        found = ", ".join(repr(found[:40]) for found in list(content)[:8]) or "nothing"
        raise InputError(f"{path}: has no {key!r} (it has {found}); is it another set's file? Download it again.")
    return content[key]

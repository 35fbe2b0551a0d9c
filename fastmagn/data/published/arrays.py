"""Published sets that are arrays: MNIST and its relatives, SVHN, STL10. Large files are mapped.

The layouts are those that torchvision's classes expect below `data.dir`.
"""

import gzip
import string
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fastmagn.data.array_images import array_set
from fastmagn.data.image_set import ImageSet
from fastmagn.data.published.reading import MAX_DEFLATE_RATIO, read_lines, read_mat, require_files, spoilt
from fastmagn.errors import InputError, one_line

_DIGITS = tuple("0123456789")
_MERGED = set("cijklmopsuvwxyz")  # letters whose two cases are one class in EMNIST's bymerge and balanced
_MERGED_CLASSES = tuple(sorted(set(string.digits + string.ascii_letters) - _MERGED))
_CLASSES = {
    "MNIST": _DIGITS,
    "FashionMNIST": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "EMNIST-balanced": _MERGED_CLASSES,
    "EMNIST-byclass": tuple(sorted(string.digits + string.ascii_letters)),
    "EMNIST-bymerge": _MERGED_CLASSES,
    "EMNIST-digits": _DIGITS,
    "EMNIST-letters": ("N/A", *string.ascii_lowercase),  # its labels are 1..26
    "EMNIST-mnist": _DIGITS,
}
_STL10_SHAPE = (3, 96, 96)  # channels, columns, rows
_STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def load_mnist(folder: Path, download: bool) -> ImageSet:
    """MNIST, from DIR/MNIST/raw/train-images-idx3-ubyte and so on, or from these as .gz; `download` is not used.

    Raises:
        InputError: A file is missing or is not the published one.
    """
    return _load_idx(Path(folder), "MNIST")


def load_fashion_mnist(folder: Path, download: bool) -> ImageSet:
    """Fashion-MNIST, from DIR/FashionMNIST/raw; as `load_mnist`."""
    return _load_idx(Path(folder), "FashionMNIST")


def load_kmnist(folder: Path, download: bool) -> ImageSet:
    """Kuzushiji-MNIST, from DIR/KMNIST/raw; as `load_mnist`."""
    return _load_idx(Path(folder), "KMNIST")


def _load_emnist(split: str, folder: Path, download: bool) -> ImageSet:
    """EMNIST, from DIR/EMNIST/raw/emnist-SPLIT-train-images-idx3-ubyte and so on; as `load_mnist`."""
    return _load_idx(Path(folder), f"EMNIST-{split}", f"emnist-{split}-train", f"emnist-{split}-test")


load_emnist_balanced = partial(_load_emnist, "balanced")
load_emnist_byclass = partial(_load_emnist, "byclass")
load_emnist_bymerge = partial(_load_emnist, "bymerge")
load_emnist_digits = partial(_load_emnist, "digits")
load_emnist_letters = partial(_load_emnist, "letters")
load_emnist_mnist = partial(_load_emnist, "mnist")


def _load_idx(root: Path, title: str, train: str = "train", test: str = "t10k") -> ImageSet:
    folder = f"{title.partition('-')[0]}/raw"
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    names = [f"{folder}/{split}-{kind}" for split in (train, test) for kind in kinds]
    names = [f"{name}.gz" if (root / f"{name}.gz").exists() > (root / name).exists() else name for name in names]
    layout = f"{folder}/{{{train},{test}}}-{{images-idx3,labels-idx1}}-ubyte, or these as .gz"
    require_files(root, names, title, layout)
    images, labels, test_images, test_labels = (_read_idx(root / name) for name in names)
    return _set(title, _CLASSES[title], root / folder, train=(images, labels), test=(test_images, test_labels))


def load_svhn(folder: Path, download: bool) -> ImageSet:
    """SVHN's cropped digits, from DIR/train_32x32.mat and DIR/test_32x32.mat; its label 10 is the digit 0.

    `download` is not used.

    Raises:
        InputError: A file is missing or is not the published one.
    """
    root, title = Path(folder), "SVHN"
    files = ["train_32x32.mat", "test_32x32.mat"]
    require_files(root, files, title, " and ".join(files))
    parts = []
    for file in files:
        content = read_mat(root / file, {"X": 4, "y": 2})
        images, labels = content["X"].transpose(3, 0, 1, 2), content["y"]
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or labels.shape != (len(images), 1):
            spoilt(root / file, f"has images {images.dtype} {list(images.shape)} and labels {list(labels.shape)}")
        parts.append((np.ascontiguousarray(images), labels[:, 0] % 10))
    return _set(title, _DIGITS, root, train=parts[0], test=parts[1])


def load_stl10(folder: Path, download: bool) -> ImageSet:
    """STL10: 5,000 training and 8,000 test images of 96 px, from DIR/stl10_binary; its unlabelled images are not used.

    `download` is not used.

    Raises:
        InputError: A file is missing or is not the published one.
    """
    root, title = Path(folder), "STL10"
    folder = root / "stl10_binary"
    names = [f"stl10_binary/{split}_{kind}.bin" for split in ("train", "test") for kind in ("X", "y")]
    require_files(root, names, title, "stl10_binary/{train,test}_{X,y}.bin")
    named = folder / "class_names.txt"
    class_names = tuple(read_lines(named)) if named.is_file() else _STL10_CLASSES
    if len(set(class_names)) != len(_STL10_CLASSES) or len(class_names) != len(_STL10_CLASSES):
        spoilt(named, f"has {len(class_names)} lines")
    parts = [_stl10_part(root / images, root / labels) for images, labels in (names[:2], names[2:])]
    return _set(title, class_names, folder, train=parts[0], test=parts[1])


def _stl10_part(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    values, size = np.fromfile(labels, np.uint8), int(np.prod(_STL10_SHAPE))
    if images.stat().st_size != size * len(values) or len(values) == 0:
        spoilt(images, f"has {images.stat().st_size} bytes for {len(values)} labels of {size} bytes each")
    mapped = np.memmap(images, np.uint8, "r", shape=(len(values), *_STL10_SHAPE))
    return mapped.transpose(0, 3, 2, 1), values.astype(np.int64) - 1


def _read_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file, mapped; that of a .gz is in memory."""
    if path.suffix == ".gz":
        return _unpack_idx(path)
    with path.open("rb") as file:
        shape, offset = _idx_shape(path, file), file.tell()
    num_values, size = int(np.prod(shape, dtype=object)), path.stat().st_size
    if size != offset + num_values or num_values == 0:
        spoilt(path, f"has {size} bytes for an array {list(shape)}")
    return np.memmap(path, np.uint8, "r", offset, shape)


def _unpack_idx(path: Path) -> np.ndarray:
    try:
        with gzip.open(path) as file:
            shape = _idx_shape(path, file)
            num_values = int(np.prod(shape, dtype=object))
            if num_values > MAX_DEFLATE_RATIO * path.stat().st_size:
                raise ValueError(f"it claims {num_values} values")
            content = file.read(num_values + 1)
    except InputError:
        raise
    except Exception as error:  # a parser may raise anything of a file that was made to break it
        spoilt(path, f"cannot be unpacked ({one_line(error)})")
    if len(content) != num_values or num_values == 0:
        spoilt(path, f"does not hold the bytes of an array {list(shape)}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _idx_shape(path: Path, file: BinaryIO | gzip.GzipFile) -> tuple[int, ...]:
    """The shape in the head of an IDX file of bytes: 0, 0, 8, the number of axes and their lengths."""
    head = file.read(4)
    axes = head[3] if head[:3] == b"\0\0\x08" and len(head) > 3 else 0
    sides = file.read(4 * axes) if axes in (1, 3) else b""
    if not sides or len(sides) < 4 * axes:
        spoilt(path, "does not begin as an IDX file of bytes does")
    return tuple(np.frombuffer(sides, ">u4").tolist())


def _set(
    title: str,
    class_names: tuple[str, ...],
    folder: Path,
    *,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> ImageSet:
    for images, labels in (train, test):
        if images.ndim < 3 or labels.shape != images.shape[:1] or images.shape[1:] != train[0].shape[1:]:
            spoilt(folder, f"has images {list(images.shape)} and labels {list(labels.shape)}")
        if not np.isin(labels, np.arange(len(class_names))).all():
            spoilt(folder, f"has labels {labels.min()}..{labels.max()} for {len(class_names)} classes")
    (images, labels), (test_images, test_labels) = train, test
    return array_set(
        f"torchvision:{title}",
        folder,
        class_names=class_names,
        train=(images, labels.astype(np.int64)),
        test=(test_images, test_labels.astype(np.int64)),
    )

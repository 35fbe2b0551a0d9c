"""Published sets that are arrays: MNIST and its relatives, SVHN, STL10. Large files are mapped.

The layouts are those that torchvision's classes expect below `data.dir`.
"""

from pathlib import Path

import numpy as np

from fastmagn.data.array_images import array_set
from fastmagn.data.image_set import ImageSet
from fastmagn.data.published.reading import read_lines, read_mat, require_files, spoilt

_DIGITS = tuple("0123456789")
_CLASSES = {
    "MNIST": _DIGITS,
    "FashionMNIST": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
_STL10_SHAPE = (3, 96, 96)  # channels, columns, rows
_STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def load_mnist(folder: Path, download: bool) -> ImageSet:
    """MNIST, from DIR/MNIST/raw/train-images-idx3-ubyte and so on; `download` is not used.

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


def _load_idx(root: Path, title: str) -> ImageSet:
    folder = f"{title}/raw"
    kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
    names = [f"{folder}/{split}-{kind}" for split in ("train", "t10k") for kind in kinds]
    require_files(root, names, title, f"{folder}/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte (not .gz)")
    images, labels, test_images, test_labels = (_map_idx(root / name) for name in names)
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


def _map_idx(path: Path) -> np.ndarray:
    """The uint8 array in an IDX file, mapped. It begins with 0, 0, 8, the number of axes and their lengths."""
    with path.open("rb") as file:
        head = file.read(16)
    axes = head[3] if head[:3] == b"\0\0\x08" and len(head) > 3 else 0
    if axes not in (1, 3) or len(head) < 4 + 4 * axes:
        spoilt(path, "does not begin as an IDX file of bytes does")
    shape = tuple(int.from_bytes(head[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    num_values, size = int(np.prod(shape, dtype=object)), path.stat().st_size
    if size != 4 + 4 * axes + num_values or num_values == 0:
        spoilt(path, f"has {size} bytes for an array {list(shape)}")
    return np.memmap(path, np.uint8, "r", 4 + 4 * axes, shape)


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

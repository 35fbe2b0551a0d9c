"""A sharded set from its index: class names, label numbers, and the image set. Labels are numbers or names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastmagn.config.schema import DataConfig
from fastmagn.data.encoded_set import encoded_set
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.files.shard_index import Indexed, image_files
from fastmagn.data.image_set import ImageSet
from fastmagn.errors import InputError, printable, some, warn_caller

CLASS_FILES = ("classes.txt", "classnames.txt")
_MAX_CLASSES = 100_000


def sharded_set(config: DataConfig, train: Indexed, test: Indexed, names: tuple[str, ...] | None = None) -> ImageSet:
    """The image set; its classes are `names`, else those of a file of names, else what the training labels say.

    Raises:
        InputError: A label is missing or out of range, or no image can be read.
    """
    root = Path(config.dir)
    class_names = names or named_classes(root) or classes_of(root, train)
    train_labels = label_numbers(root, train, class_names)
    warn_of_absent(root, class_names, train_labels)
    test_labels = label_numbers(root, test, class_names)
    return encoded_set(
        config, image_files(root, train, train_labels), image_files(root, test, test_labels), class_names
    )


def sharded_test(
    config: DataConfig, test: Indexed, names: tuple[str, ...] | None = None
) -> tuple[FolderImages, tuple[str, ...]]:
    """The test images and the class names, which are `names`, else those of a file, else what the test labels say.

    Raises:
        InputError: As `sharded_set`.
    """
    root = Path(config.dir)
    class_names = names or named_classes(root) or classes_of(root, test)
    return FolderImages(image_files(root, test, label_numbers(root, test, class_names)), config), class_names


def named_classes(root: Path) -> tuple[str, ...] | None:
    """The names in classes.txt or classnames.txt, one a line, label 0 first; None if there is no such file.

    Raises:
        InputError: The file cannot be read, is empty, or names a class twice.
    """
    for file in (root / name for name in CLASS_FILES):
        try:
            lines = file.read_text("utf-8").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read ({error}); expected one class name a line, in UTF-8.") from None
        names = tuple(line.strip() for line in lines if line.strip())
        if not names or len(set(names)) < len(names):
            twice = some(sorted({name for name in names if names.count(name) > 1}))
            raise InputError(f"{file}: {f'names {twice} twice' if twice else 'is empty'}; expected one class a line.")
        return names
    return None


def classes_of(root: Path, indexed: Indexed) -> tuple[str, ...]:
    """The classes that training labels make: the names, sorted; or as many numbers as the largest label says.

    Raises:
        InputError: A number is not in 0..99,999.
    """
    texts = sorted(set(indexed.labels))
    if not all(_is_number(text) for text in texts):
        return tuple(texts)
    largest = max(map(int, texts))
    if largest >= _MAX_CLASSES:
        raise _out_of_range(root, indexed, indexed.labels.index(str(largest)), _MAX_CLASSES)
    return tuple(map(str, range(largest + 1)))


def label_numbers(root: Path, indexed: Indexed, class_names: Sequence[str]) -> np.ndarray:
    """The labels as numbers, int64 [N], each in 0..K-1; a label that is the name of a class counts as its number.

    Raises:
        InputError: A label is neither the number nor the name of a class.
    """
    by_number = {str(number): number for number in range(len(class_names))}
    by_name = {name: number for number, name in enumerate(class_names)}
    numbers = by_name | by_number if all(map(_is_number, indexed.labels)) else by_number | by_name
    texts = [str(int(text)) if _is_number(text) else text for text in indexed.labels]
    for row, text in enumerate(texts):
        if text not in numbers:
            raise _out_of_range(root, indexed, row, len(class_names))
    return np.array([numbers[text] for text in texts], np.int64)


def warn_of_absent(root: Path, class_names: Sequence[str], labels: np.ndarray) -> None:
    """Warn of classes without training images."""
    absent = [class_names[label] for label in np.setdiff1d(np.arange(len(class_names)), labels)]
    if absent:
        warn_caller(f"{root}: {len(absent)} of {len(class_names)} classes have no training image: {some(absent)}.")


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19


def _out_of_range(root: Path, indexed: Indexed, row: int, num_classes: int) -> InputError:
    where, label = printable(f"{root}/{indexed.names[row]}"), indexed.labels[row][:40]
    return InputError(
        f"{where}: its label is {label!r}; expected 0..{num_classes - 1} or the name of a class of the training images."
    )

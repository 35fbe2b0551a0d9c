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
    are_numbers = all_numbers(train, test)
    class_names = names or named_classes(root) or classes_of(root, train, are_numbers)
    train_labels, test_labels = label_numbers(root, (train, test), class_names, are_numbers)
    warn_of_absent(root, class_names, train_labels)
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
    are_numbers = all_numbers(test)
    class_names = names or named_classes(root) or classes_of(root, test, are_numbers)
    (labels,) = label_numbers(root, (test,), class_names, are_numbers)
    return FolderImages(image_files(root, test, labels), config), class_names


def named_as_in_train(
    root: Path, train: Indexed, names: Sequence[str] | None, test: Indexed, test_names: Sequence[str]
) -> Indexed:
    """The test images with the labels that training images of the same classes have, whatever test's numbers are.

    Args:
        root: The folder of the set, for messages.
        train: The training images.
        names: The classes of train's numbers; None if nothing names them, so that test's numbers are taken for train's.
        test: The test images.
        test_names: The classes of test's numbers.

    Raises:
        InputError: A test image has a number without a class, or a class that `names` lacks.
    """
    train_has_numbers = all_numbers(train)
    if train_has_numbers and names is None:
        return test
    own = {str(number): name for number, name in enumerate(test_names)}
    unnamed = next((row for row, text in enumerate(test.labels) if _is_number(text) and text not in own), None)
    if unnamed is not None:
        raise _out_of_range(root, test, unnamed, f"0..{len(own) - 1}")
    named = test._replace(labels=[own.get(text, text) for text in test.labels])
    if names is None or not train_has_numbers:
        return named
    numbers = {name: str(number) for number, name in enumerate(names)}
    unknown = next((row for row, name in enumerate(named.labels) if name not in numbers), None)
    if unknown is not None:
        raise _out_of_range(root, named, unknown, f"a class of the training images: {some(numbers)}")
    return named._replace(labels=[numbers[name] for name in named.labels])


def named_classes(root: Path) -> tuple[str, ...] | None:
    """The names in classes.txt or classnames.txt, one a line, label 0 first; None if there is no such file.

    Raises:
        InputError: The file cannot be read, is empty, or names a class twice.
    """
    for file in (root / name for name in CLASS_FILES):
        try:
            lines = file.read_text("utf-8-sig").splitlines()
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


def all_numbers(*splits: Indexed) -> bool:
    """Whether all labels of all splits are numbers. One that is not makes all of them names, in every split."""
    return all(_is_number(text) for split in splits for text in split.labels)


def classes_of(root: Path, indexed: Indexed, are_numbers: bool) -> tuple[str, ...]:
    """The classes that training labels make: the names, sorted; or as many numbers as the largest label says.

    Raises:
        InputError: A number is not in 0..99,999.
    """
    if not are_numbers:
        return tuple(sorted(set(indexed.labels)))
    numbers = list(map(int, indexed.labels))
    largest = max(numbers)
    if largest >= _MAX_CLASSES:
        raise _out_of_range(root, indexed, numbers.index(largest), f"0..{_MAX_CLASSES - 1}")
    return tuple(map(str, range(largest + 1)))


def label_numbers(
    root: Path, splits: Sequence[Indexed], class_names: Sequence[str], are_numbers: bool
) -> list[np.ndarray]:
    """The labels of each split as numbers, int64 [N], each in 0..K-1.

    Numbers are read as numbers. If one of them is not in 0..K-1, and each is the name of a class, they are names.

    Args:
        root: The folder of the set, for messages.
        splits: The images of each split.
        class_names: K names.
        are_numbers: Whether all labels of all splits are numbers; if not, each is the name of a class as it stands.

    Raises:
        InputError: A label is neither the number nor the name of a class.
    """
    names = {name: number for number, name in enumerate(class_names)}
    by_number = {text: int(text) for split in splits for text in split.labels} if are_numbers else {}
    in_range = {text: number for text, number in by_number.items() if 0 <= number < len(class_names)}
    are_names = not are_numbers or (len(in_range) < len(by_number) and by_number.keys() <= names.keys())
    numbers = names if are_names else in_range
    if are_names:
        allowed = "the name of a class of the training images, as not all labels are numbers"
    else:
        allowed = f"0..{len(class_names) - 1} or the name of a class of the training images"
    for split in splits:
        unknown = next((row for row, text in enumerate(split.labels) if text not in numbers), None)
        if unknown is not None:
            raise _out_of_range(root, split, unknown, allowed)
    return [np.array([numbers[text] for text in split.labels], np.int64) for split in splits]


def warn_of_absent(root: Path, class_names: Sequence[str], labels: np.ndarray) -> None:
    """Warn of classes without training images."""
    absent = [class_names[label] for label in np.setdiff1d(np.arange(len(class_names)), labels)]
    if absent:
        warn_caller(f"{root}: {len(absent)} of {len(class_names)} classes have no training image: {some(absent)}.")


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19


def _out_of_range(root: Path, indexed: Indexed, row: int, allowed: str) -> InputError:
    where, label = printable(f"{root}/{indexed.names[row]}"), indexed.labels[row][:40]
    return InputError(f"{where}: its label is {label!r}; expected {allowed}.")

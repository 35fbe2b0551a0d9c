"""Add data sets, networks, methods and corruptions of your own, by name; docs/extending.md shows each.

Call these functions in a file that `--import FILE` names, or in a program before it trains. A name of fastmagn's own
cannot be replaced; one of yours is replaced if it is added again.

Shape letters: N images, K classes, H W image, B batch.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fastmagn.config.corruption_sets import SET_NAMES
from fastmagn.corruptions import CORRUPTIONS
from fastmagn.data import DATASETS
from fastmagn.data.array_images import array_set, check_stored, class_labels
from fastmagn.data.image_set import ImageSet, check_class_names
from fastmagn.errors import InputError, as_array, form
from fastmagn.methods.method import Method
from fastmagn.methods.table import METHODS
from fastmagn.models import MODELS

LoadData = Callable[[Path, bool], ImageSet]
BuildNetwork = Callable[[int], nn.Module]
Corrupt = Callable[[NDArray[np.uint8], int, int, NDArray[np.int64]], NDArray[np.uint8]]
Labelled = tuple[NDArray[np.uint8], Sequence[int] | NDArray[np.integer]]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
OWN_STREAMS = range(128, 256)  # of `StepContext`, for methods of your own


def add_dataset(name: str, load: LoadData) -> None:
    """Add a data set, for `--data.name NAME`.

    Args:
        name: Up to 63 letters, digits and `_ . -`, the first a letter.
        load: (data.dir, data.download) -> an ImageSet, such as `image_set` makes. It is called in each process. The
            same folder must give the same images in the same order.

    Raises:
        InputError: The name cannot be used, or `load` is not a function.
    """

    def load_checked(folder: Path, download: bool) -> ImageSet:
        loaded = load(folder, download)
        if not isinstance(loaded, ImageSet):
            raise InputError(
                f"data.name: {name} loaded a {_kind(loaded)}; expected what fastmagn.extend.image_set makes."
            )
        return dataclasses.replace(loaded, name=name)

    _check_function("data set", name, load)
    _add(DATASETS, "data set", name, load_checked)


def image_set(*, class_names: Sequence[str], train: Labelled, test: Labelled) -> ImageSet:
    """An ImageSet of arrays.

    Images are uint8 [N, H, W] (grey), [N, H, W, 1] or [N, H, W, 3] (RGB), H and W 8..4096, of one size in both parts;
    grey is repeated in three channels, and sides below 32 px or of different length are padded by repeating the edges.

    Args:
        class_names: K names; label k is class_names[k].
        train: Images, and their labels: integers [N] in 0..K-1.
        test: Likewise.

    Raises:
        InputError: The arrays are something else, or a name cannot be shown.
    """
    is_listed = isinstance(class_names, Iterable) and not isinstance(class_names, str)  # a text is not its letters
    names = tuple(class_names) if is_listed else ()
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise InputError(f"class_names: got {class_names!r}; expected different strings, one for each class.")
    check_class_names(names, "class_names")
    parts = {}
    for part, given in (("train", train), ("test", test)):
        if not isinstance(given, tuple | list) or len(given) != 2:
            many = f" of {len(given)}" if isinstance(given, tuple | list) else ""
            raise InputError(f"{part}: got a {_kind(given)}{many}; expected a pair, the images and their labels.")
        images_u8, labels = as_array(f"{part} images", given[0]), as_array(f"{part} labels", given[1])
        check_stored(images_u8, f"{part} images")
        parts[part] = images_u8, class_labels(labels, f"{part} labels", len(images_u8), len(names))
    return array_set("own", Path("own data set"), class_names=names, train=parts["train"], test=parts["test"])


def add_model(name: str, build: BuildNetwork) -> None:
    """Add a network, for `--model.name NAME`.

    Args:
        name: As in `add_dataset`.
        build: K -> a network with new weights: normalised images float [B, 3, H, W] -> logits [B, K]. Weights are drawn
            from torch's global generator, which the run seeds. No dropout: it would draw from a generator with state,
            and a resumed run would differ. No `view`, but `flatten` or `reshape`: images are stored channels last.

    Raises:
        InputError: The name cannot be used, or `build` is not a function.
    """

    def build_checked(num_classes: int) -> nn.Module:
        network = build(num_classes)
        if not isinstance(network, nn.Module):
            raise InputError(f"model.name: {name} built a {_kind(network)}; expected a torch.nn.Module.")
        return network

    _check_function("network", name, build)
    _add(MODELS, "network", name, build_checked)


def add_method(name: str, method: Method) -> None:
    """Add a training method, for `--method NAME`.

    What it draws comes from its `StepContext`, from streams in 128..255: those below are fastmagn's own.

    Args:
        name: As in `add_dataset`.
        method: Its title, views and loss.

    Raises:
        InputError: The name cannot be used, or `method` is not a Method.
    """
    if not isinstance(method, Method):
        raise InputError(f"method {name!r}: got a {_kind(method)}; expected a fastmagn.methods.method.Method.")
    _add(METHODS, "method", name, method)


def add_corruption(name: str, corrupt: Corrupt) -> None:
    """Add a corruption; `--eval.corruption_set c15+NAME` measures it.

    Args:
        name: As in `add_dataset`, but no `+`, and not the name of a set.
        corrupt: (images uint8 [N, H, W, 3] that it may change, severity 1..5, seed 0..2^64 - 1, sample indices int64
            [N]) -> images uint8 [N, H, W, 3]. An image's result may depend on that image, the severity, the seed and
            the image's index only. Several threads call it at once, each with some of the images.

    Raises:
        InputError: The name cannot be used, or `corrupt` is not a function.
    """

    def corrupt_checked(
        images_u8: NDArray[np.uint8], severity: int, seed: int, indices: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        corrupted = corrupt(images_u8.copy(), severity, seed, indices)
        is_array = isinstance(corrupted, np.ndarray)
        if not is_array or corrupted.dtype != np.uint8 or corrupted.shape != images_u8.shape:
            got = form(corrupted) if is_array else f"a {_kind(corrupted)}"
            raise InputError(f"corruption {name}: returned {got}; expected uint8 {list(images_u8.shape)}.")
        return corrupted

    _check_function("corruption", name, corrupt)
    if (name in SET_NAMES and name not in CORRUPTIONS) or name == "clean":
        raise InputError(f"corruption {name!r}: is the name of a set, or of the images as they are; choose another.")
    _add(CORRUPTIONS, "corruption", name, corrupt_checked)
    if name not in SET_NAMES:
        SET_NAMES.append(name)


def _add(table: dict[str, Any], what: str, name: str, entry: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{what} {name!r}: expected a name of up to 63 letters, digits, underscores, dots and hyphens, the first a"
            " letter."
        )
    if isinstance(table.get(name), str):
        raise InputError(f"{what} {name!r}: is a name of fastmagn's own; choose another.")
    table[name] = entry


def _check_function(what: str, name: str, function: object) -> None:
    if not callable(function):
        raise InputError(f"{what} {name!r}: got a {_kind(function)}; expected a function.")


def _kind(value: object) -> str:
    return type(value).__name__

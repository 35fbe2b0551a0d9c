"""Whether a model's classes are those of the images that measure it. Shape letter: K classes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch.utils.data import Subset

from fastmagn.data import OWN, ImageSet
from fastmagn.errors import InputError, counted
from fastmagn.evaluation.datasets import LABEL_KEYS
from fastmagn.machine.console import warn
from fastmagn.machine.torchrun import rank

_MAX_NAME_CHARS = 40


class Classes(NamedTuple):
    """The classes that a model was trained for, and the data set that they are of.

    Args:
        names: K names; label k is names[k].
        data: Name of the data set.
        model: The file or the folder that says so.
    """

    names: tuple[str, ...]
    data: str
    model: str


def check_classes(image_set: ImageSet, trained: Classes | None) -> None:
    """Check that label k means to the model what it means in the images; None: nobody knows the model's classes.

    The user's own images may have numbers in place of names; then a warning says how they are understood.

    Raises:
        InputError: A class has another name, there are more or fewer, or their order is another.
    """
    if trained is None:
        return
    remedy = (
        f"Name the images that it was trained for (--data.name {trained.data}), or other images of the same classes"
        " under the same names."
    )
    name = image_set.name
    _check_same(image_set.class_names, name, trained, "data.name", remedy, is_own=name in OWN)


def check_classes_of_dataset(dataset: Any, model: Any, field: str, labels_field: str) -> None:
    """Check the same of a classifier of `fastmagn.load` and a dataset in Python, if that says what its classes are.

    Args:
        dataset: Anything. A Dataset of PyTorch has `classes`, a list of texts, and one of Hugging Face `features`.
        model: Anything; the classes of one with `trained_for` are checked.
        field: What messages call the dataset.
        labels_field: What they call labels that are given beside it.

    Raises:
        InputError: As `check_classes`.
    """
    while type(dataset) is Subset:  # a class derived from it may have labels of its own
        dataset = dataset.dataset
    trained, names, title = getattr(model, "trained_for", None), _stated_names(dataset), type(dataset).__name__
    if not isinstance(trained, Classes) or names is None or trained.data == f"torchvision:{title}":
        return
    remedy = (
        f"Give images of the same classes under the same names, or the labels in the model's order as {labels_field}."
    )
    if _are_other_spellings(names, trained.names):
        if rank() == 0:
            first, theirs = next(pair for pair in zip(names, trained.names, strict=True) if pair[0] != pair[1])
            warn(f"{field}: class {first!r} of {title} is treated as {theirs!r} of {trained.model}.")
        return
    _check_same(names, title, trained, field, remedy, is_own=True)


def _are_other_spellings(names: tuple[str, ...], trained_names: tuple[str, ...]) -> bool:
    """Whether most names are at their place, and none of the others is a name of another place."""
    if len(names) != len(trained_names) or names == trained_names:
        return False
    others = [pair for pair in zip(names, trained_names, strict=True) if pair[0] != pair[1]]
    is_moved = any(name in trained_names or trained_name in names for name, trained_name in others)
    return not is_moved and 2 * len(others) < len(names)


def _stated_names(dataset: Any) -> tuple[str, ...] | None:
    """The names of a dataset's classes, in the order of its labels; None if it does not say them."""
    names = getattr(dataset, "classes", None)
    features = getattr(dataset, "features", None)
    if names is None and isinstance(features, Mapping):
        label = next((features[key] for key in LABEL_KEYS if key in features), None)
        names = getattr(label, "names", None)
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        return None
    if getattr(dataset, "target_transform", None) is not None or _is_transformed(dataset):  # the user's own labels
        return None
    if all(name.startswith(f"{number} - ") for number, name in enumerate(names)):  # torchvision's MNIST
        return tuple(map(str, range(len(names))))
    return tuple(names)


def _is_transformed(dataset: Any) -> bool:
    """Whether a dataset of Hugging Face has a function of the user's (`with_transform`)."""
    form = getattr(dataset, "format", None)
    return isinstance(form, Mapping) and form.get("type") == "custom"


def _check_same(names: tuple[str, ...], title: str, trained: Classes, field: str, remedy: str, *, is_own: bool) -> None:
    """Raise InputError, ended by the remedy, unless these are the model's classes; is_own: of the user's own images."""
    # Earlier versions took a byte order mark for a part of a name.
    trained = trained._replace(names=tuple(name.removeprefix("\ufeff") for name in trained.names))
    if names == trained.names:
        return
    if len(names) != len(trained.names):
        raise InputError(
            f"{field}: got {title} with {counted(len(names), 'class')}; expected the {len(trained.names)} of"
            f" {trained.model}. {remedy}"
        )
    number = next(k for k, (ours, theirs) in enumerate(zip(names, trained.names, strict=True)) if ours != theirs)
    ours, theirs = names[number][:_MAX_NAME_CHARS], trained.names[number][:_MAX_NAME_CHARS]
    is_reordered = set(names) == set(trained.names)
    have_numbers = (is_own and _are_numbers(names)) or (trained.data in OWN and _are_numbers(trained.names))
    if have_numbers and not is_reordered:
        if rank() == 0:
            warn(
                f"{title}: class {ours!r} is treated as {theirs!r} of {trained.model}, and so on in their order: the"
                " classes of one of them are numbers only."
            )
        return
    order = " The names are the same, in another order." if is_reordered else ""
    raise InputError(
        f"{field}: got {title}, whose class {number} is {ours!r}; expected {theirs!r}, as in {trained.model}.{order}"
        f" {remedy}"
    )


def _are_numbers(names: tuple[str, ...]) -> bool:
    """Whether the classes have no names, but their numbers."""
    return names == tuple(map(str, range(len(names))))

"""Whether a model's classes are those of the images that measure it. Shape letter: K classes."""

from typing import NamedTuple

from fastmagn.data import OWN, ImageSet
from fastmagn.errors import InputError, counted
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


def check_classes(image_set: ImageSet, trained: Classes) -> None:
    """Check that label k means to the model what it means in the images.

    The user's own images may have numbers in place of names; then a warning says how they are understood.

    Raises:
        InputError: A class has another name, or there are more or fewer.
    """
    names = image_set.class_names
    if names == trained.names:
        return
    remedy = (
        f"Name the images that it was trained for (--data.name {trained.data}), or other images of the same classes"
        " under the same names."
    )
    if len(names) != len(trained.names):
        raise InputError(
            f"data.name: got {image_set.name} with {counted(len(names), 'class')}; expected the {len(trained.names)} of"
            f" {trained.model}. {remedy}"
        )
    if _are_numbers(image_set.name, names) or _are_numbers(trained.data, trained.names):
        if rank() == 0:
            warn(
                f"{image_set.name}: class {names[0]!r} is taken for {trained.names[0]!r} of {trained.model}, and so on"
                " in their order: the classes of one of them are numbers only."
            )
        return
    number = next(k for k, (ours, theirs) in enumerate(zip(names, trained.names, strict=True)) if ours != theirs)
    ours, theirs = names[number][:_MAX_NAME_CHARS], trained.names[number][:_MAX_NAME_CHARS]
    raise InputError(
        f"data.name: got {image_set.name}, whose class {number} is {ours!r}; expected {theirs!r}, as in"
        f" {trained.model}. {remedy}"
    )


def _are_numbers(data: str, names: tuple[str, ...]) -> bool:
    """Whether the user's own images have no names of classes, but their numbers."""
    return data in OWN and names == tuple(map(str, range(len(names))))

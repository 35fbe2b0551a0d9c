"""Paths as people write them: `~` and `~NAME` are home folders."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastmagn.errors import InputError, is_shown

MAX_PATH_CHARS = 4096  # as many as Linux takes, and as a value of a configuration can have


def user_path(text: str | Path, field: str = "path") -> Path:
    """The path that a user gave, with the home folder in place of a leading `~` or `~NAME`.

    The shell does this for an argument of its own, but not for `--field=~/x`, nor in quotes or in a YAML file.

    Args:
        text: The path.
        field: The field or option in which it was given, for the message.

    Raises:
        InputError: The user does not exist.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        home = Path(text).parts[0]
        raise InputError(
            f"{field}: got {str(text)!r}; expected the home folder of a user of this machine, but {home} is not one. "
            f"For a folder that is named {home}, give its whole path."
        ) from None


def kept_path(text: str | Path, field: str) -> Path:
    """The `user_path` of a field of a configuration, which a run folder keeps as text.

    Raises:
        InputError: As in `user_path`; or the path is too long or has characters that cannot be printed, and could not
            be read again.
    """
    if not is_shown(str(text)):
        raise InputError(f"{field}: got {str(text)[:80]!r}; expected a path whose characters can all be printed.")
    if len(str(text)) > MAX_PATH_CHARS:
        raise InputError(f"{field}: got {len(str(text)):,} characters; expected a path of at most {MAX_PATH_CHARS:,}.")
    return user_path(text, field)


def with_user_paths(value: Any, field: str = "", path: Callable[[str | Path, str], Path] = user_path) -> Any:
    """The same parsed value with `path` of every Path in it: in lists, and in namespaces, which are changed."""
    if isinstance(value, Path):
        return path(value, field)
    if isinstance(value, list):
        return [with_user_paths(one, field, path) for one in value]
    if isinstance(value, Namespace):
        for name, inner in vars(value).items():
            setattr(value, name, with_user_paths(inner, f"{field}.{name}".removeprefix("."), path))
    return value

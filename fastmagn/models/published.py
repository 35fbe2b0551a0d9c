"""The classifiers that come with fastmagn: their names, and their files in fastmagn/published."""

from fnmatch import fnmatchcase
from pathlib import Path

from fastmagn.errors import nearest

PUBLISHED = Path(__file__).parent.parent / "published"
SUFFIX = ".safetensors"


def list_models(pattern: str = "*") -> list[str]:
    """The names of the published classifiers, sorted. `fastmagn.load(NAME)` loads one; NAME.safetensors.md is its card.

    Examples:
        >>> import fastmagn
        >>> fastmagn.list_models("*magn*") == [name for name in fastmagn.list_models() if "magn" in name]
        True

    Args:
        pattern: Which names: `*`, `?` and `[...]` as in a shell. Case matters.
    """
    return sorted(file.stem for file in PUBLISHED.glob(f"*{SUFFIX}") if fnmatchcase(file.stem, pattern))


def published_file(name: str | Path) -> Path | None:
    """The file of the published classifier of this name; None if there is none."""
    return PUBLISHED / f"{name}{SUFFIX}" if str(name) in list_models() else None


def published_names(unknown: str | Path) -> str:
    """The end of a message about an unknown name: `a published model (one, two). Did you mean 'two'?`."""
    names = list_models()
    return f"a published model ({', '.join(names) or 'none is there'}).{nearest(str(unknown), names)}"

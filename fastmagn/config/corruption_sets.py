"""The names that a set of corruptions can have in a configuration."""

from fastmagn.errors import UnknownName

# A corruption that the user has added (`fastmagn.extend`) is a set of its own.
SET_NAMES = ["c15", "c18", "c19", "cbar"]


def set_parts(field: str, value: object) -> tuple[str, ...]:
    """The names that `value` joins by +, each once: ("c15", "cbar") for c15+cbar.

    Raises:
        UnknownName: It is not text, or a name is unknown.
    """
    parts = tuple(dict.fromkeys(value.split("+"))) if isinstance(value, str) else ()
    if not parts or not all(part in SET_NAMES for part in parts):
        names = ", ".join(SET_NAMES)
        raise UnknownName(
            f"{field}: got {value!r}; expected one of {names}, or several of them joined by +, such as c15+cbar."
            " Single corruptions of them cannot be chosen."
        )
    return parts

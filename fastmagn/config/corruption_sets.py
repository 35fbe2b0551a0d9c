"""The names that a set of corruptions can have in a configuration."""

from fastmagn.errors import check

SET_NAMES = ("c15", "c18", "c19", "cbar")


def set_parts(field: str, value: object) -> tuple[str, ...]:
    """The names that `value` joins by +, each once: ("c15", "cbar") for c15+cbar.

    Raises:
        InputError: It is not text, or a name is unknown.
    """
    parts = tuple(dict.fromkeys(value.split("+"))) if isinstance(value, str) else ()
    known = bool(parts) and all(part in SET_NAMES for part in parts)
    check(known, field, value, f"one of {', '.join(SET_NAMES)}, or several of them joined by +, such as c15+cbar")
    return parts

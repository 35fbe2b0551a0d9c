"""Registries are plain dicts, name -> "module:attribute", resolved when a name is used.

A name that the user has added (`fastmagn.extend`) has the object itself in place of the text.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from fastmagn.errors import UnknownName, nearest


def resolve(registry: Mapping[str, Any], name: str, field: str, also: str = "") -> Any:
    """The object registered as `name`.

    Args:
        registry: The names, and where their objects are.
        name: A name that a user gave.
        field: The field in which it was given, for the message.
        also: Ends the message's list of names: what the caller accepts beside them.

    Raises:
        UnknownName: The name is unknown; the message has the nearest name and all names.
    """
    if not isinstance(name, str) or name not in registry:
        names, hint = ", ".join(registry), nearest(name, registry) if isinstance(name, str) else ""
        raise UnknownName(f"{field}: got {name!r}; expected one of {names}{also}.{hint}")
    registered = registry[name]
    if not isinstance(registered, str):
        return registered
    module, attribute = registered.split(":")
    return getattr(importlib.import_module(module), attribute)


def is_own(registry: Mapping[str, Any], name: str) -> bool:
    """Whether the user has added this name."""
    return name in registry and not isinstance(registry[name], str)


def lazy_attributes(module: str, registry: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `module`: what `registry` names is imported when it is used, not when the module is.

    So `import fastmagn.data` gives the table of data sets without importing torch.
    """

    def get_attribute(name: str) -> Any:
        if name in registry:
            return resolve(registry, name, module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return get_attribute

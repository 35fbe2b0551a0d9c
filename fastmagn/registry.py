"""Registries are plain dicts, name -> "module:attribute", resolved when a name is used."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from fastmagn.errors import InputError, nearest


def resolve(registry: Mapping[str, str], name: str, field: str, also: str = "") -> Any:
    """The object registered as `name`.

    Args:
        registry: The names, and where their objects are.
        name: A name that a user gave.
        field: The field in which it was given, for the message.
        also: Ends the message's list of names: what the caller accepts beside them.

    Raises:
        InputError: The name is unknown; the message has the nearest name and all names.
    """
    if not isinstance(name, str) or name not in registry:
        names, hint = ", ".join(registry), nearest(name, registry) if isinstance(name, str) else ""
        raise InputError(f"{field}: got {name!r}; expected one of {names}{also}.{hint}")
    module, attribute = registry[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def lazy_attributes(module: str, registry: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `module`: what `registry` names is imported when it is used, not when the module is.

    So `import fastmagn.data` gives the table of data sets without importing torch.
    """

    def get_attribute(name: str) -> Any:
        if name in registry:
            return resolve(registry, name, module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return get_attribute

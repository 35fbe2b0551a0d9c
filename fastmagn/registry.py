"""Registries are plain dicts, name -> "module:attribute", resolved when asked for."""

import importlib
from collections.abc import Mapping
from typing import Any

from fastmagn.errors import InputError, nearest


def resolve(registry: Mapping[str, str], name: str, field: str, also: str = "") -> Any:
    """The object registered as `name`; the error for an unknown one names `field`, the nearest name and all names.

    `also` ends the list of names: what the caller takes beside them.
    """
    if name not in registry:
        names = ", ".join(registry)
        raise InputError(f"{field}: got {name!r}; expected one of {names}{also}.{nearest(name, registry)}")
    module, attribute = registry[name].split(":")
    return getattr(importlib.import_module(module), attribute)

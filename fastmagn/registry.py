"""Registries are plain dicts, name -> "module:attribute", resolved when asked for."""

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from fastmagn.errors import InputError


def resolve(registry: Mapping[str, str], name: str, field: str, also: str = "") -> Any:
    """The object registered as `name`; the error for an unknown one names `field`, the nearest name and all names.

    `also` ends the list of names: what the caller takes beside them.
    """
    if name not in registry:
        nearest = difflib.get_close_matches(name, registry, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise InputError(f"{field}: got {name!r}; expected one of {', '.join(registry)}{also}.{hint}")
    module, attribute = registry[name].split(":")
    return getattr(importlib.import_module(module), attribute)

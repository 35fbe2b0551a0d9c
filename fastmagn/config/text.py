"""A Config as text: plain dicts and lists, YAML, and a flat dict of its fields; and any text in Markdown."""

import re
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from fastmagn.config.schema import Config


class _Dumper(yaml.SafeDumper):
    """Quotes texts such as 1e3, which PyYAML reads as text and the parser of the command line as a number."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9._]+[eE][-+]?[0-9]+$"), list("-+0123456789.")
)


def plain(config: Any) -> Any:
    """A Config, or a part of one, as values of YAML and JSON: dicts, lists, strings, numbers, None."""
    if is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    if isinstance(config, dict):
        return {name: plain(value) for name, value in config.items()}
    return str(config) if isinstance(config, Path) else config


def to_yaml(config: Config) -> str:
    """A Config as YAML. `--config` reads it back to an equal Config."""
    return yaml_text(plain(config))


def yaml_text(values: Any, allow_unicode: bool = False) -> str:
    """Plain values as YAML, from which both PyYAML and the parser of the command line read the same values.

    Args:
        values: Dicts, lists, strings, numbers, None.
        allow_unicode: Write characters beyond ASCII as they are, not as escapes.
    """
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows literally, also in a table. An underscore inside a word needs no escape."""
    return re.sub(r"[\\`*\[\]<|~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(text.split()))


def flatten(config: Config | dict[str, Any]) -> dict[str, Any]:
    """The value of every field of a Config, or of a `plain` one, by its dotted name, such as `train.epochs`."""
    flat: dict[str, Any] = {}
    for name, value in plain(config).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[name] = value
    return flat

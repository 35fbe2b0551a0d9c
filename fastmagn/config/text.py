"""A Config as text: plain dicts and lists, YAML, and a flat dict of its fields."""

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from fastmagn.config.schema import Config


def plain(config: Any) -> Any:
    """A Config, or a part of one, as values of YAML and JSON: dicts, lists, strings, numbers, None."""
    if is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    if isinstance(config, dict):
        return {name: plain(value) for name, value in config.items()}
    return str(config) if isinstance(config, Path) else config


def to_yaml(config: Config) -> str:
    """A Config as YAML. `--config` reads it back to an equal Config."""
    return yaml.safe_dump(plain(config), sort_keys=False)


def flatten(config: Config | dict[str, Any]) -> dict[str, Any]:
    """The value of every field of a Config, or of a `plain` one, by its dotted name, such as `train.epochs`."""
    flat: dict[str, Any] = {}
    for name, value in plain(config).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[name] = value
    return flat

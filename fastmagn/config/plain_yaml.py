"""Reads YAML that came from elsewhere: plain mappings, lists and short texts, one clear line for anything else.

The parser of the command line is safe against tags, but not against an alias that unfolds into a billion values, a
`class_path` that makes it import a module, or a section that names a further file.
"""

from pathlib import Path
from typing import Any

import yaml

from fastmagn.errors import InputError

MAX_BYTES = 1 << 20
_MAX_SCALAR = 4096  # characters; a path's most
_MAX_DEPTH = 16


def read_plain_yaml(path: Path, sections: frozenset[str] = frozenset(), max_bytes: int = MAX_BYTES) -> str:
    """The text of a YAML file that a run's configuration can be.

    Args:
        path: The file.
        sections: Keys of the top level whose value must be a mapping: the parser would take a text for a file's name.
        max_bytes: A larger file is not read.

    Raises:
        InputError: It is larger, no regular file, not UTF-8, not YAML; or it has an anchor, an alias, a tag,
            a `class_path`, a character that cannot be printed, a text above 4096 characters, 16 levels, or a text for
            a section.
    """
    try:
        if not path.is_file() or path.stat().st_size > max_bytes:
            raise InputError(f"{path}: expected a YAML file of at most {max_bytes} bytes.")
        text = path.read_text(encoding="utf-8")
        fault = _fault(text) or _section_fault(text, sections)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected a YAML file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:200]}).") from error
    if fault:
        raise InputError(f"{path}: {fault}; expected plain fields and values.")
    return text


def load_plain_yaml(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """What a YAML file says, by the rules of `read_plain_yaml`; for files that the command line's parser does not read.

    Raises:
        InputError: As `read_plain_yaml`, or it is not YAML.
    """
    try:
        return yaml.safe_load(read_plain_yaml(path, max_bytes=max_bytes))
    except (yaml.YAMLError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())[:200]}).") from error


def _fault(text: str) -> str | None:
    """What a configuration never has, with its line; None for nothing. Nothing is built of the text."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = f"line {event.start_mark.line + 1}"
        if getattr(event, "anchor", None) is not None:
            return f"{line} has the anchor or alias {event.anchor[:40]!r}"
        if getattr(event, "tag", None) is not None:
            return f"{line} has the tag {event.tag[:80]!r}"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                return f"{line} is more than {_MAX_DEPTH} levels deep"
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.ScalarEvent) and (fault := _scalar_fault(event.value)):
            return f"{line} {fault}"
    return None


def _scalar_fault(value: str) -> str | None:
    if len(value) > _MAX_SCALAR:
        return f"has a value of {len(value)} characters"
    if not value.isprintable():
        return f"has a character that cannot be printed, in {value[:40]!r}"
    if value == "class_path":
        return "has a class_path, which names code"
    return None


def _section_fault(text: str, sections: frozenset[str]) -> str | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return None  # the parser of the fields says so
    for key, value in root.value:
        if not isinstance(key, yaml.ScalarNode):
            return f"line {key.start_mark.line + 1}: a key that is no text"
        if key.value in sections and not isinstance(value, yaml.MappingNode):
            return f"line {key.start_mark.line + 1}: {key.value} is no mapping of its fields"
    return None

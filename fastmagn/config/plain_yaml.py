"""Reads YAML of unknown origin: plain mappings, lists and short strings. Anything else is an error in one line.

The parser of the command line is safe against tags. It is not safe against an alias that expands into a billion values,
a `class_path` that makes it import a module, or a section that names another file.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from fastmagn.config.paths import MAX_PATH_CHARS
from fastmagn.errors import InputError, is_shown, one_line

MAX_BYTES = 1 << 20
_MAX_DEPTH = 16
_OCTAL = re.compile(r"[-+]?0[0-7_]*[1-7][0-7_]*")


def read_plain_yaml(path: Path, sections: frozenset[str] = frozenset(), max_bytes: int = MAX_BYTES) -> str:
    """The text of a YAML file, after checking that it holds nothing but plain values.

    Args:
        path: The file.
        sections: Keys of the top level whose value must be a mapping: the parser would read a string as a file's name.
        max_bytes: A larger file is not read.

    Raises:
        InputError: The file is larger, not a regular file, not UTF-8 or not YAML; or it has an anchor, an alias, a tag,
            a key `class_path`, a character that cannot be printed, an octal number, a value of more than 4096
            characters, more than 16 levels, a key twice, or a string in place of a section.
    """
    try:
        if not path.is_file() or path.stat().st_size > max_bytes:
            raise InputError(f"{path}: expected a YAML file of at most {max_bytes} bytes.")
        text = path.read_text(encoding="utf-8-sig")
        fault = _fault(text) or _key_fault(text, sections)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; expected a YAML file.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except InputError:
        raise
    except Exception as error:  # a damaged file can make the parser fail in any way
        raise InputError(f"{path}: cannot be read as YAML ({one_line(error)}).") from error
    if fault:
        raise InputError(f"{path}: {fault}; expected plain fields and values.")
    return text


def load_plain_yaml(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """The values of a YAML file that `read_plain_yaml` accepts.

    Raises:
        InputError: As in `read_plain_yaml`.
    """
    try:
        return yaml.safe_load(read_plain_yaml(path, max_bytes=max_bytes))
    except InputError:
        raise
    except Exception as error:  # likewise
        raise InputError(f"{path}: cannot be read as YAML ({one_line(error)}).") from error


def _fault(text: str) -> str | None:
    """The first thing in the text that is not a plain value, with its line; None if there is none. Builds no value."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = f"line {event.start_mark.line + 1}"
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            return f"{line} has the anchor or alias {anchor[:40]!r}"
        if tag is not None:
            return f"{line} has the tag {tag[:80]!r}"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                return f"{line} is more than {_MAX_DEPTH} levels deep"
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.ScalarEvent) and (fault := _scalar_fault(event.value) or _octal_fault(event)):
            return f"{line} {fault}"
    return None


def _scalar_fault(value: str) -> str | None:
    if len(value) > MAX_PATH_CHARS:
        return f"has a value of {len(value)} characters"
    if not is_shown(value):
        return f"has a character that cannot be printed, in {value[:40]!r}"
    return None


def _octal_fault(event: yaml.ScalarEvent) -> str | None:
    """A number with a leading zero: YAML reads it as octal, the command line as decimal."""
    if event.style is None and _OCTAL.fullmatch(event.value):
        return f"has {event.value[:40]!r}, which YAML reads as octal; leave out the zeros, or quote a text"
    return None


def _key_fault(text: str, sections: frozenset[str]) -> str | None:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):  # the parser of the fields reports another one
        for key, value in root.value:
            if not isinstance(key, yaml.ScalarNode):
                return f"line {key.start_mark.line + 1}: a key is not a string"
            if key.value in sections and not isinstance(value, yaml.MappingNode):
                return f"line {key.start_mark.line + 1}: {key.value} is not a mapping of its fields"
    return None if root is None else _wrong_key(root)


def _wrong_key(node: yaml.Node) -> str | None:
    """The first key that names code, or that a mapping has twice: YAML would silently drop what the first one holds."""
    seen: dict[str, yaml.Node] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if isinstance(key, yaml.ScalarNode) and (first := seen.setdefault(key.value, key)) is not key:
            return f"line {key.start_mark.line + 1} repeats {key.value} of line {first.start_mark.line + 1}"
        if isinstance(key, yaml.ScalarNode) and key.value == "class_path":
            return f"line {key.start_mark.line + 1} has a class_path, which names code"
        if fault := _wrong_key(value):
            return fault
    for item in node.value if isinstance(node, yaml.SequenceNode) else []:
        if fault := _wrong_key(item):
            return fault
    return None

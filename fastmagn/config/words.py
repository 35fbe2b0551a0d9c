"""Types and the parser's errors in words: `train.epochs: got 'abc'; expected a whole number.`"""

import ast
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
_PLACEHOLDERS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
# What the parser says of a value whose text it does not give.
_KINDS = {"int": "a number", "float": "a number", "bool": "true or false", "list": "a list", "dict": "a mapping"}
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_MAX_VALUE = 100  # characters


def in_words(hint: Any) -> str:
    """The values that a type allows, such as `a whole number` or `auto, true or false`."""
    alternatives = [word for one in _alternatives(hint) for word in _words(one)]
    return " or ".join([", ".join(alternatives[:-1]), alternatives[-1]] if len(alternatives) > 1 else alternatives)


def placeholder(hint: Any) -> str:
    """What stands for a value in a help text, such as `N` or `{last,ema}`."""
    words = allowed_words(hint)
    return "{" + ",".join(words) + "}" if words else _PLACEHOLDERS.get(types_of(hint)[0], "VALUE")


def allowed_words(hint: Any) -> list[str]:
    """The values that a type allows, if they can be listed: those of a Literal, true and false; else none."""
    literals = [str(value) for one in types_of(hint) for value in _values(one)]
    return [*literals, *(["true", "false"] if bool in types_of(hint) else [])]


def types_of(hint: Any) -> tuple[Any, ...]:
    """The types that a type joins, without None."""
    return tuple(one for one in _alternatives(hint) if one is not NoneType)


def allows_none(hint: Any) -> bool:
    """Whether null is a value of the type."""
    return NoneType in _alternatives(hint)


def describe_fault(line: str, hints: Mapping[str, Any], positionals: Collection[str] = ()) -> str:
    """The parser's error in our words: the field, what came, what is allowed.

    Args:
        line: The error on one line.
        hints: The type of each option by its name; others are sections, whose fields are set one by one.
        positionals: Arguments that are given without their names.
    """
    if match := re.fullmatch(r'Parser key "([\w.]+)": (.*)', line):
        return _describe_value(match[1], match[2], hints)
    if match := re.fullmatch(r"argument --([\w.]+)\S*: expected (?:at least )?one argument", line):
        return f"{match[1]}: got no value; expected {_expected(match[1], hints)}."
    if match := re.fullmatch(r"argument --([\w.]+)\S*: invalid (int|float) value: (.*)", line):
        return f"{match[1]}: got {match[3]}; expected {in_words({'int': int, 'float': float}[match[2]])}."
    if match := re.fullmatch(r"Group '([\w.]+)' does not accept option '(.*)'", line):
        name = match[2] if match[2].startswith(f"{match[1]}.") else f"{match[1]}.{match[2]}"
        return f"{name}: is not a field."
    if match := re.fullmatch(r"Option '(.*)' is not accepted", line):
        return f"{match[1]}: is not a field."
    if match := re.fullmatch(r"Unexpected config: (.*)", line):
        return f"config: got {match[1][:_MAX_VALUE]!r}; expected fields, such as `train: {{epochs: 3}}`."
    if match := re.fullmatch(r"the following arguments are required: ([\w., ]+)", line):
        names = [name.upper() if name in positionals else f"--{name}" for name in match[1].split(", ")]
        return f"{', '.join(names)}: required; --help says what to give."
    if match := re.fullmatch(r"unrecognized arguments: (.*)", line):
        return f"got {match[1]!r}; expected only options, each with one value."
    return line


def _describe_value(name: str, fault: str, hints: Mapping[str, Any]) -> str:
    if name == "config":
        return f"config: cannot be read as YAML ({fault})."
    if name not in hints:
        return f"{name}: got another value than a mapping of its fields; expected them one by one, as {name}.FIELD."
    given = re.search(r"(?:Got|Given) value:(.*)", fault)
    kind = re.search(r"not '?(\w+)'?(?: |$)(?!of)", fault)
    got = _shown(given[1].strip()) if given else _KINDS.get(kind[1] if kind else "", "another kind of value")
    return f"{name}: got {got}; expected {_expected(name, hints)}."


def _expected(name: str, hints: Mapping[str, Any]) -> str:
    return in_words(hints[name]) if name in hints else "a value"


def _shown(text: str) -> str:
    """A value as the message shows it: texts in quotes."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    text = _CONSTANTS.get(text) or repr(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}..."


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _values(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _words(hint: Any) -> list[str]:
    if hint is bool:
        return ["true", "false"]
    if hint is NoneType:
        return ["null"]
    return [str(value) for value in _values(hint)] or [_WORDS.get(hint, "a value")]

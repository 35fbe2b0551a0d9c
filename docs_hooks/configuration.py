"""The fields of docs/configuration.md, from the schema: types, defaults and docstrings, and what each check allows."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_type_hints

import docstring_parser

from fastmagn.config.help import shown_default
from fastmagn.config.schema import Config
from fastmagn.config.text import flatten
from fastmagn.config.words import allowed_words, allows_none, in_words, types_of
from fastmagn.errors import InputError
from fastmagn.methods.table import METHODS

PAGE = "configuration.md"
_MARK = re.compile(r"^<!-- The fields\..*? -->$", re.MULTILINE | re.DOTALL)
_NAMES = frozenset(flatten(Config()))
# Outside every range, one for each type; the error then says what is allowed.
_REFUSED: dict[type, Any] = {int: -2, float: -2.0, str: "?", Path: Path("?")}
_PARTS = re.compile(r"(?P<code>`[^`]*`)|(?P<name>\b[a-z]+\.\w+)|(?P<special>[\\*_\[\]{}<>&$])")


def on_page_markdown(markdown: str, /, *, page: Any, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""
    if page.file.src_uri != PAGE:
        return markdown
    text, count = _MARK.subn(lambda _: all_fields(), markdown)
    assert count == 1, f"{PAGE}: has no place for the fields"
    return text


def on_page_content(page_html: str, /, *, page: Any, **_: Any) -> str:
    """The table of contents has the sections; the fields would make it longer than any screen."""
    if page.file.src_uri == PAGE:
        for section in page.toc.items[0].children:
            section.children.clear()
    return page_html


def all_fields() -> str:
    """Every section and field as Markdown: first the fields of the run itself, then each section."""
    sections = [field for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)]
    parts = ["## The run", *section_fields(Config, "")]
    for section in sections:
        assert isinstance(section.type, type)
        parts += [f"## {section.name}", *section_fields(section.type, f"{section.name}.")]
    return "\n\n".join(parts)


def section_fields(section: type, prefix: str) -> list[str]:
    """A dataclass as paragraphs: its docstring, then each field."""
    docstring = docstring_parser.parse(section.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
    described = {entry.arg_name: entry.description or "" for entry in docstring.params}
    paragraphs = [to_markdown(docstring.description or "")] if prefix else []
    hints = get_type_hints(section)
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(field.type):
            continue
        name, hint = prefix + field.name, hints[field.name]
        default = "null" if field.default is None else shown_default(field.default)
        facts = [in_words(hint), f"default `{default}`"]
        if (allowed := allowed_values(section, name, hint)) is not None:
            facts.append(f"allowed: {allowed}")
        paragraphs += [f"### `{name}` {{ #{name} }}", f"{'; '.join(facts)}\n{{ .facts }}"]
        paragraphs.append(to_markdown(described[field.name], name))
    return paragraphs


def allowed_values(section: type, name: str, hint: Any) -> str | None:
    """What the schema's own error says is allowed, with all other fields at their defaults, as Markdown; or None."""
    if name == "method":
        return ", ".join(f"[{method}](methods/{method}.md)" for method in METHODS)
    if allowed_words(hint):
        return None  # the type lists them
    try:
        section(**{name.rpartition(".")[2]: _REFUSED[types_of(hint)[0]]})
    except InputError as error:
        found = re.fullmatch(rf"{re.escape(name)}: got .*?; expected (.*?)\.(?: Did you mean .*)?", str(error))
        if found is not None:
            return to_markdown(found[1], name) + (", or null" if allows_none(hint) else "")
    return None


def to_markdown(text: str, own_name: str = "") -> str:
    """A docstring's plain text as Markdown; names of other fields become links."""

    def marked(match: re.Match[str]) -> str:
        word = match[0].strip("`")
        if word in _NAMES and word != own_name:
            return f"[`{word}`](#{word})"
        if match["code"]:
            return match[0]
        return re.sub(r"[\\*_\[\]{}$]", r"\\\g<0>", match[0]).replace("&", "&amp;").replace("<", "&lt;")

    return _PARTS.sub(marked, text)

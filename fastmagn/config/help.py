"""What `--help` shows: examples first, then options with their placeholders, types in words and defaults."""

import argparse
import textwrap
from typing import Any

from fastmagn.config.words import in_words, placeholder

_MAX_WIDTH = 110  # columns


class HelpFormatter(argparse.HelpFormatter):
    """Formats the help of every command. A paragraph whose lines are indented is kept as it is."""

    tells_types = True

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **options)
        self._max_help_position = 30
        self._width = min(self._width, _MAX_WIDTH)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if part.startswith(" ") else textwrap.fill(" ".join(part.split()), width)
            for part in text.strip("\n").split("\n\n")
        )

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return placeholder(getattr(action, "_typehint", action.type or str))

    def _expand_help(self, action: argparse.Action) -> str:
        hint = getattr(action, "_typehint", None)
        if hint is None:
            return action.help or ""
        notes = [in_words(hint)] if self.tells_types and not placeholder(hint).startswith("{") else []
        if action.required:
            notes.append("required")
        elif action.default is not argparse.SUPPRESS:
            notes.append(f"default: {shown_default(action.default)}")
        return f"{action.help} ({'; '.join(notes)})"


def brief_formatter(shown: frozenset[str]) -> type[HelpFormatter]:
    """Formats only these options, and without types: a placeholder such as N is enough."""

    class BriefFormatter(HelpFormatter):
        tells_types = False

        def add_argument(self, action: argparse.Action) -> None:
            if action.dest in shown:
                super().add_argument(action)

    return BriefFormatter


def hide_sections(parser: argparse.ArgumentParser) -> None:
    """Leave the options that set a whole section at once out of a parser's help. They are options all the same."""
    for action in parser._actions:
        if action.metavar == "CONFIG" and action.dest != "config":
            action.help = argparse.SUPPRESS


def shown_default(default: Any) -> str:
    """A field's default as the command line takes it."""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:.6g}" if isinstance(default, float) else str("none" if default is None else default)

"""A script with which a shell completes verbs, options and values on Tab. It is made by shtab, from the parsers."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastmagn.config.words import allowed_words, types_of
from fastmagn.errors import InputError, without

SHELLS = ("bash", "zsh", "tcsh")
OPTION = "--print_completion"


def completion_script(
    program: str,
    verbs: Mapping[str, tuple[str, Iterable[argparse.ArgumentParser]]],
    names: Mapping[str, Iterable[str]],
    shell: str,
) -> str:
    """The script for a shell.

    Args:
        program: The name of the program, as it is typed.
        verbs: What each verb does, and the parsers whose options it takes.
        names: The values of options whose type does not say them, by the option's name.
        shell: One of SHELLS.

    Raises:
        InputError: The shell is another one, or shtab is not installed.
    """
    if shell not in SHELLS:
        raise InputError(f"{OPTION}: got {shell!r}; expected {', '.join(SHELLS[:-1])} or {SHELLS[-1]}.")
    try:
        import shtab
    except ImportError as error:
        raise without("shtab", error, f"{OPTION}: needs shtab; pip install 'fastmagn[completion]'.") from error
    root = argparse.ArgumentParser(program)
    root.add_argument("--version", action="store_true", help="print the version")
    root.add_argument(OPTION, choices=SHELLS, help="print a script for the shell")
    chosen = root.add_subparsers()
    for verb, (what, parsers) in verbs.items():
        parser = chosen.add_parser(verb, help=what, add_help=False, conflict_handler="resolve")
        for action in (action for one in parsers for action in one._actions):
            if action.help != argparse.SUPPRESS:
                _add(parser, action, names, shtab.FILE)
    return shtab.complete(root, shell)


def _add(
    parser: argparse.ArgumentParser, action: argparse.Action, names: Mapping[str, Iterable[str]], files: dict[str, str]
) -> None:
    """Add an option or an argument like `action` to `parser`."""
    about = (action.help or "").partition(". ")[0].replace("%", "%%")
    if action.option_strings and action.nargs == 0:
        parser.add_argument(*action.option_strings, action="store_true", help=about)
        return
    hint = getattr(action, "_typehint", None) or action.type
    words = list(names.get(action.dest, ())) or allowed_words(hint)
    options: dict[str, Any] = {"help": about, **({"choices": words} if words else {})}
    added = parser.add_argument(*(action.option_strings or [action.dest]), nargs=action.nargs, **options)
    if Path in types_of(hint) or action.metavar == "FILE":
        added.complete = files  # type: ignore[attr-defined]

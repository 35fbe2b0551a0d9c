"""The terminal: one console for all modules, warnings, progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastmagn.machine.compiling import COMPILING, told_of_compiling
from fastmagn.machine.streams import CurrentOutput

_output: Any = CurrentOutput()
# Nothing printed is markup: a run folder may be named runs/x[/y] or runs/:smile:. A notebook gets plain lines.
console = Console(file=_output, highlight=False, markup=False, emoji=False, force_jupyter=False)


def warn(message: str) -> None:
    """Print a warning in one line, in bold."""
    console.print(f"warning: {message}", style="bold yellow", soft_wrap=True)


def say_compiling(shown: bool = True) -> None:
    """Say that kernels are being compiled, where a progress bar would be shown."""
    if shown and console.is_terminal:
        console.print(COMPILING)


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[Progress]:
    """A progress bar as wide as the terminal; without a terminal, or if it is not to be shown, it shows nothing.

    While kernels are compiled, a line above it says so.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    is_shown = shown and console.is_terminal
    bar = Progress(*columns, console=console, disable=not is_shown, transient=True, expand=True)
    with told_of_compiling(say_compiling) if is_shown else nullcontext(), bar:
        yield bar

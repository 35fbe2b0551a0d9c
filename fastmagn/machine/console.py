"""The terminal: one console for all modules, warnings, progress bars."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastmagn.machine.streams import CurrentOutput

# Nothing printed is markup: a run folder may be named runs/x[/y] or runs/:smile:.
console = Console(file=CurrentOutput(), highlight=False, markup=False, emoji=False)


def warn(message: str) -> None:
    """Print a warning in one line, in bold."""
    console.print(f"warning: {message}", style="bold yellow", soft_wrap=True)


def progress_bar(shown: bool = True) -> Progress:
    """A progress bar; without a terminal, or if it is not to be shown, it shows nothing."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
    )
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True)

"""The terminal: one console for all modules, warnings, progress bars."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False)


def warn(message: str) -> None:
    """Print a warning in one line, in bold."""
    console.print(f"warning: {message}", style="bold yellow", markup=False, soft_wrap=True)


def progress_bar(shown: bool = True) -> Progress:
    """A progress bar; without a terminal, or if it is not to be shown, it shows nothing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    return Progress(*columns, console=console, disable=not (shown and console.is_terminal), transient=True)

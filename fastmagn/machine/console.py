"""What a run leaves behind and shows: metrics.jsonl, TensorBoard, the environment, progress, tables."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False)


def warn(message: str) -> None:
    """Print a warning that is not to be missed, in one line."""
    console.print(f"warning: {message}", style="bold yellow", markup=False, soft_wrap=True)


def progress_bar() -> Progress:
    """A progress display for a terminal; shows nothing where the output is not one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)

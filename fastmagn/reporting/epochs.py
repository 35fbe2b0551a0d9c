"""The training curve of a run: the rows of its metrics.jsonl."""

from pathlib import Path
from typing import Any

from fastmagn.runs.reading import strict_json


def read_epochs(file: Path) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """The rows of metrics.jsonl. If one is damaged: no rows, and a warning."""
    rows: list[dict[str, Any]] = []
    try:
        if not file.exists():
            return (), []
        lines = file.read_text(encoding="utf-8").splitlines()
        for line in lines:
            rows.append(_epoch(line))
    except (OSError, ValueError, RecursionError) as error:
        return (), [
            f"{file}: line {len(rows) + 1} is damaged ({error}); the run is reported without its training curve."
        ]
    return tuple(rows), []


def _epoch(line: str) -> dict[str, Any]:
    row = strict_json(line)
    columns = [row.get(name) if isinstance(row, dict) else None for name in ("epoch", "loss", "train_accuracy")]
    if not all(isinstance(value, int | float) for value in columns):
        raise ValueError("it lacks epoch, loss or train_accuracy")
    return row

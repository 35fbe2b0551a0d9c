"""Writing files so that a reader sees the old one or the new one, never half of one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path` for writing; on success it is flushed to disk and renamed to `path`, else removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, UTF-8."""
    with replace_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as strict JSON (NaN and infinity are refused), indented."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")

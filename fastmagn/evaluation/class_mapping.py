"""A file that maps class folders to a run's classes: JSON, YAML or CSV."""

import csv
import json
from pathlib import Path
from typing import Any

from fastmagn.config.plain_yaml import load_plain_yaml
from fastmagn.errors import InputError, counted, one_line

MAX_MAPPING_BYTES = 1 << 24


def read_mapping(path: Path) -> dict[str, str]:
    """Folder name -> class name, from a JSON object, a YAML mapping, or a CSV file of two columns.

    A CSV file may start with a line of headings, `folder,class`.

    Raises:
        InputError: The file is missing, too large, of another kind, damaged, or holds anything but names.
    """
    readers = {
        ".json": lambda file: json.loads(_text(file)),
        **dict.fromkeys((".yaml", ".yml"), lambda file: load_plain_yaml(file, MAX_MAPPING_BYTES)),
        ".csv": lambda file: _read_csv(_text(file)),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"classes: got {path}; expected a file named *{', *'.join(readers)}.")
    try:
        if path.stat().st_size > MAX_MAPPING_BYTES:
            raise InputError(f"{path}: has {path.stat().st_size} bytes; expected at most {MAX_MAPPING_BYTES}.")
        mapping = readers[path.suffix.lower()](path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected names of folders and classes."
        ) from error
    except InputError:
        raise
    except (ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as {path.suffix[1:].upper()} ({one_line(error)}).") from error
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: holds a {type(mapping).__name__}; expected a class name for each folder name.")
    for folder, name in mapping.items():
        if not _is_name(folder) or not _is_name(name):
            raise InputError(f"{path}: got {folder!r}: {name!r}; expected a folder name and a class name.")
    return {str(folder): str(name) for folder, name in mapping.items()}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) or type(value) is int  # YAML reads 7 as a number; isinstance would take True for one


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _read_csv(text: str) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for number, row in enumerate(csv.reader(text.splitlines(), strict=True), start=1):
        columns = [column.strip() for column in row]
        if columns in ([], ["folder", "class"]):
            continue
        if len(columns) != 2:
            raise ValueError(f"line {number} has {counted(len(columns), 'column')}, not 2")
        if columns[0] in mapping:
            raise ValueError(f"line {number} names folder {columns[0]!r} again")
        mapping[columns[0]] = columns[1]
    return mapping

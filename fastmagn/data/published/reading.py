"""Reads the small files of published sets: lists, JSON, MATLAB's arrays. Their contents may be from anyone."""

import json
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np

from fastmagn.errors import InputError, one_line, some

_MAX_LIST_BYTES = 1 << 27
MAX_DEFLATE_RATIO = 1032  # the most that zlib can compress


def require_files(root: Path, paths: list[str], title: str, layout: str) -> None:
    """Raise InputError, which says what was looked for, unless all these files and folders are in `root`.

    Args:
        root: The folder that `data.dir` names.
        paths: Relative to it; a folder ends with a slash.
        title: The set.
        layout: What a right folder looks like.
    """
    missing = [path for path in paths if not (root / path).exists()]
    if missing:
        raise InputError(
            f"data.dir: looked for {title} in {root}; missing {some(missing)}; expected {layout}. Name the folder that"
            " holds it with --data.dir; torchvision.datasets downloads it."
        )


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty, without white space at their ends.

    Raises:
        InputError: The file cannot be read, is larger than 128 MiB, or is not UTF-8.
    """
    return [line for text in _read_text(path).splitlines() if (line := text.strip())]


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: As `read_lines`, or it is not JSON.
    """
    try:
        return json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        spoilt(path, f"is not JSON ({one_line(error)})")


def read_mat(path: Path, shapes: dict[str, int]) -> dict[str, np.ndarray]:
    """Arrays of a MATLAB file of version 4 to 7, which holds data only; SciPy's reader imports nothing that it names.

    Args:
        path: The file.
        shapes: Name -> the number of dimensions that the array has.

    Raises:
        InputError: The file cannot be read, or has no such array; or it claims more than its bytes can hold.
    """
    import scipy.io

    try:
        claimed = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        num_values = sum(int(np.prod(claimed.get(name, ()), dtype=object)) for name in shapes)
        if num_values > MAX_DEFLATE_RATIO * path.stat().st_size:
            raise ValueError(f"it claims {num_values} values")
        content = scipy.io.loadmat(path, variable_names=list(shapes))
    except Exception as error:  # a parser may raise anything of a file that was made to break it
        spoilt(path, f"cannot be read as a MATLAB file ({one_line(error)})")
    for name, num_axes in shapes.items():
        if name not in content or content[name].ndim != num_axes:
            spoilt(path, f"has no array {name!r} of {num_axes} dimensions")
    return content


def check_inside(path: Path, names: list[str]) -> None:
    """Raise InputError if a list of files names one that is not below its folder."""
    outside = [name for name in names if not name or PurePosixPath(name).is_absolute() or ".." in name.split("/")]
    if outside:
        spoilt(path, f"names files outside its folder, such as {outside[0][:80]!r}")


def spoilt(path: Path, fault: str) -> NoReturn:
    """Raise the InputError of a file that is not the published one."""
    raise InputError(f"{path}: {fault}; it is not the published file. Download it again.")


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_LIST_BYTES + 1)
        if len(content) > _MAX_LIST_BYTES:
            raise InputError(f"{path}: is larger than {_MAX_LIST_BYTES} bytes; expected a list of images.")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        spoilt(path, f"is not a text in UTF-8 ({one_line(error)})")

"""Opens .npy files that came from elsewhere: mapped, plain numbers only, one clear line for anything else."""

from pathlib import Path

import numpy as np

from fastmagn.errors import InputError

# What numpy raises for headers that are no headers: it parses them as Python's literals.
_UNREADABLE = (
    *(ValueError, OSError, EOFError, SyntaxError, TypeError, ArithmeticError, RecursionError, MemoryError, LookupError),
)


def open_array(path: Path, missing: str, remedy: str) -> np.ndarray:
    """Map an array of plain numbers from a .npy file, read-only; nothing is read before it is used.

    Args:
        path: The file.
        missing: What to say after "no such file; " where there is none.
        remedy: What to do with a file that is truncated, foreign or holds objects.

    Raises:
        InputError: There is no such file, or it is not a whole .npy array of plain numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {missing}")
    try:
        # Unlike np.load, open_memmap takes neither archives nor pickles; it refuses arrays of objects.
        with np.errstate(over="raise"):  # a shape whose product is 2^64
            array = np.lib.format.open_memmap(path, mode="r")
        if array.dtype.kind not in "biuf":
            raise ValueError(f"its values are {str(array.dtype)[:80]}")
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a whole .npy array of plain numbers ({reason}). {remedy}") from error
    return array

"""Opens .npy files that came from elsewhere: mapped, plain numbers only, one clear line for anything else."""

from pathlib import Path

import numpy as np

from fastmagn.errors import InputError


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
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a whole .npy array of plain numbers ({reason}). {remedy}") from error

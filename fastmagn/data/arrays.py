"""Opens .npy files from elsewhere as memory maps: plain numbers only, and one clear line for anything else."""

import warnings
from pathlib import Path

import numpy as np

from fastmagn.errors import InputError, one_line


def open_array(path: Path, missing: str, remedy: str) -> np.ndarray:
    """Map an array of plain numbers from a .npy file, read-only; values are read when they are used.

    Args:
        path: The file.
        missing: What the message says after "no such file; ".
        remedy: What the message advises for a file that is truncated, of another kind, or holds objects.

    Raises:
        InputError: The file does not exist, or it is not a whole .npy array of plain numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {missing}")
    try:
        # Unlike np.load, open_memmap accepts neither archives nor pickles, and it refuses arrays of objects.
        with np.errstate(over="raise"), warnings.catch_warnings():  # a shape whose product is 2^64
            warnings.simplefilter("ignore")  # of a header that is odd Python; what it says is checked below
            array = np.lib.format.open_memmap(path, mode="r")
        if array.dtype.kind not in "biuf":
            raise ValueError(f"its values are {str(array.dtype)[:80]}")
    except Exception as error:  # numpy parses the header as Python: any error of a tokenizer or parser may come
        reason = one_line(error)
        raise InputError(f"{path}: not a whole .npy array of plain numbers ({reason}). {remedy}") from error
    return array

"""numba's compiler, with a cache on disk that follows every kernel source.

numba's own cache watches only the file that a function stands in: a kernel would keep running the code it once inlined
from rng.py or pixel.py after these have changed. Here the cache's folder is named after all sources of this package.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import config

_SOURCES = Path(__file__).parent


def jit(function: Callable | None = None, **options: Any) -> Any:
    """`numba.njit` of the function with `cache=True`; options as numba's, such as `parallel` or `nogil`."""

    def compile_later(function: Callable) -> Any:
        before = config.CACHE_DIR
        config.CACHE_DIR = cache_folder()  # read when a function is decorated; others' functions keep their own
        try:
            compiled = numba.njit(function, cache=True, **options)
        finally:
            config.CACHE_DIR = before
        _keep_where_possible(compiled)
        return compiled

    return compile_later if function is None else compile_later(function)


def _keep_where_possible(compiled: Any) -> None:
    """What cannot be kept on disk is compiled for this process only: a full disk, or processes that compile at once,
    after which numba seldom has "no compiled object yet" to write, must not end a run.
    """
    save = compiled._cache.save_overload

    def save_overload(signature: Any, result: Any) -> None:
        with suppress(OSError, RuntimeError):
            save(signature, result)

    compiled._cache.save_overload = save_overload


def jit_uncounted(function: Callable) -> Any:
    """`jit` for a function that allocates no array, and returns none to Python or to a function of plain `jit`.

    numba counts the references to every array that a function slices or unpacks, atomically; of an AugMix view of 32x32
    pixels that was half the time. The arguments outlive the call, so that nothing has to be counted.
    """
    return jit(function, _nrt=False)


@cache
def cache_folder() -> str:
    """Where compiled kernels are kept: NUMBA_CACHE_DIR, else beside the sources, else the user's cache folder."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*.py")):
        digest.update(path.relative_to(_SOURCES).as_posix().encode() + path.read_bytes())
    if config.CACHE_DIR:
        base = Path(config.CACHE_DIR)
    elif os.access(_SOURCES, os.W_OK):
        base = _SOURCES / "__pycache__"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastmagn"
    folder = base / f"kernels-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # nowhere to keep them: compile once for each process
        return tempfile.mkdtemp(prefix="fastmagn-kernels-")
    return str(folder)

"""numba's compiler, with a cache on disk that follows every kernel source.

numba's own cache watches only the file that contains a function: after a change in rng.py or pixel.py, a kernel would
still run the code that it inlined from there before. Here the name of the cache's folder is a hash of all sources of
this package.
"""

import hashlib
import os
import stat
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
    """Compile a function by `numba.njit` with `cache=True`; the options are numba's, such as `parallel` or `nogil`."""

    def compile_later(function: Callable) -> Any:
        before = config.CACHE_DIR
        config.CACHE_DIR = cache_folder()  # numba reads it when it decorates; other packages keep their own
        try:
            # numba would otherwise inline what is compiled within a `jit_inlined` function, and not what was cached.
            compiled = numba.njit(function, cache=True, **{"forceinline": False, **options})
        finally:
            config.CACHE_DIR = before
        keep_where_possible(compiled._cache)
        return compiled

    return compile_later if function is None else compile_later(function)


def keep_where_possible(cache: Any) -> None:
    """Continue without numba's cache if it cannot be written or read; the function is then compiled for this process.

    A full disk must not end a run, nor may several processes that compile at once: numba then occasionally raises "no
    compiled object yet". Files that a power cut has cut short are emptied, so that later processes write them again.
    """
    load, save = cache.load_overload, cache.save_overload

    def load_overload(signature: Any, target_context: Any) -> Any:
        try:
            return load(signature, target_context)
        except Exception:  # what damaged pickles raise has many types
            with suppress(OSError):
                cache.flush()
            return None

    def save_overload(signature: Any, result: Any) -> None:
        with suppress(OSError, RuntimeError):
            save(signature, result)

    cache.load_overload, cache.save_overload = load_overload, save_overload


def jit_uncounted(function: Callable, **options: Any) -> Any:
    """Compile a function that allocates no array and returns none to Python or to a function of plain `jit`.

    numba counts the references to every array that a function slices or unpacks, atomically. That took half the time of
    an AugMix view of 32x32 pixels. The arguments outlive the call, so here numba counts nothing.
    """
    return jit(function, _nrt=False, **options)


def jit_inlined(function: Callable) -> Any:
    """Compile a function as `jit_uncounted` does, and inline it wherever it is called.

    It is for functions that take a large NamedTuple and are called in few places. numba passes every field of every
    array by itself: 140 words for the CPU engine's `Scratch`, which took up to a fifth of the time of an AugMix view.
    """
    return jit_uncounted(function, forceinline=True)


@cache
def cache_folder() -> str:
    """Return the folder for compiled kernels: in NUMBA_CACHE_DIR, else beside the sources, else in the user's cache.

    Where that cannot be made or written (no home, HOME=/), it is one of temporary files, the same for later processes.
    """
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*.py")):
        digest.update(path.relative_to(_SOURCES).as_posix().encode() + path.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    base = _base_folder()
    if base is not None:
        with suppress(OSError):
            (base / name).mkdir(parents=True, exist_ok=True)
            if os.access(base / name, os.W_OK | os.X_OK):
                return str(base / name)
    return _temporary_folder(name)


def _base_folder() -> Path | None:
    """Return where the folder of compiled kernels belongs; None if nobody knows the user's home."""
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR)
    if os.access(_SOURCES, os.W_OK):
        return _SOURCES / "__pycache__"
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "fastmagn"
    try:
        return Path.home() / ".cache" / "fastmagn"
    except RuntimeError:  # no HOME, and no entry in the list of users, as with a container's numeric user
        return None


def _temporary_folder(name: str) -> str:
    """Return a folder of temporary files that all processes of this user share, and nobody else can write to.

    If another user has taken its name, each process gets its own.
    """
    base = Path(tempfile.gettempdir()) / f"fastmagn-{os.geteuid()}"
    with suppress(OSError):
        with suppress(FileExistsError):
            base.mkdir(mode=0o700)
        state = base.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o077:
            (base / name).mkdir(exist_ok=True)
            return str(base / name)
    return tempfile.mkdtemp(prefix="fastmagn-kernels-")

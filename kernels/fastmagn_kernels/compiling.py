"""numba's compiler, with a cache on disk that follows every kernel source.

numba's own cache watches only the file that contains a function: after a change in rng.py or pixel.py, a kernel would
still run the code that it inlined from there before. Here the name of the cache's folder is a hash of all sources of
this package.
"""

import fcntl
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import config
from numba.core.caching import IndexDataCacheFile
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.core.sigutils import normalize_signature

from fastmagn_kernels.parts import Kernel, Part

_SOURCES = Path(__file__).parent
_unsaved: list[Exception] = []  # why kernels of this process are not in the cache


def jit(function: Callable | None = None, *, per_constant: bool = False, **options: Any) -> Any:
    """Compile a function as `numba.njit` does, with a cache on disk; the options are numba's, such as `nogil`.

    Other kernels call one version of it, whatever the constants that they pass; with `per_constant`, a version for each
    constant. That pays for a loop over pixels whose body depends on one.
    """

    def compile_later(function: Callable) -> Kernel:
        every = _every(options)
        return _cached(Kernel(function, every, lambda: _cached(Part(function, every, per_constant))))

    return compile_later if function is None else compile_later(function)


def _every(options: dict[str, Any]) -> dict[str, Any]:
    # numba would otherwise inline what is compiled within a `jit_inlined` function, and not what was cached.
    # Nobody calls a kernel from C: without that entry it compiles faster.
    return {"nopython": True, "boundscheck": None, "forceinline": False, "no_cfunc_wrapper": True, **options}


def _cached(kernel: Dispatcher) -> Dispatcher:
    before = config.CACHE_DIR
    config.CACHE_DIR = cache_folder()  # numba reads it here; other packages keep their own
    try:
        kernel.enable_caching()
    finally:
        config.CACHE_DIR = before
    keep_where_possible(kernel._cache)
    return kernel


def keep_where_possible(cache: Any) -> None:
    """Continue without numba's cache if it cannot be written or read; the function is then compiled for this process.

    A full disk must not end a run, nor may several processes that compile at once: numba then occasionally raises "no
    compiled object yet". Files that a power cut has cut short are emptied, so that later processes write them again;
    so is a file that holds another signature's code, which a process can leave that is killed while it adds one.
    """
    load, save = cache.load_overload, cache.save_overload
    _read_shipped(cache)

    def load_overload(signature: Any, target_context: Any) -> Any:
        try:
            found = load(signature, target_context)
            if found is None or found.signature.args == normalize_signature(signature)[0]:
                return found
        except Exception:  # what damaged pickles raise has many types
            pass
        with suppress(OSError):
            cache.flush()
        return None

    def save_overload(signature: Any, result: Any) -> None:
        try:
            with open(os.path.join(cache.cache_path, ".lock"), "ab") as lock:
                # Of two processes that add a signature to a function's index at once, one would lose its own.
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
                save(signature, result)
        except (OSError, RuntimeError) as error:
            _unsaved.append(error)

    cache.load_overload, cache.save_overload = load_overload, save_overload


def _read_shipped(cache: Any) -> None:
    """Look in the folder beside the sources too, for what the cache does not have."""
    shipped = shipped_folder()
    if shipped is None:
        return
    implementation, files = cache._impl, cache._cache_file
    behind = IndexDataCacheFile(
        cache_path=os.path.join(shipped, os.path.basename(cache.cache_path)),
        filename_base=implementation.filename_base,
        source_stamp=implementation.locator.get_source_stamp(),
    )
    load_own = files.load
    files.load = lambda key: load_own(key) or behind.load(key)


def jit_uncounted(function: Callable, **options: Any) -> Any:
    """Compile a function that allocates no array and returns none to Python or to a function of plain `jit`.

    numba counts the references to every array that a function slices or unpacks, atomically. That took half the time of
    an AugMix view of 32x32 pixels. The arguments outlive the call, so here numba counts nothing.
    """
    return jit(function, _nrt=False, **options)


def jit_inlined(function: Callable | None = None, **options: Any) -> Any:
    """Compile a function as `jit_uncounted` does, and inline it wherever it is called. Python cannot call it.

    It is for functions that take a large NamedTuple and are called in few places, and for those that are called for few
    pixels. numba passes every field of every array by itself: 140 words for the CPU engine's `Scratch`, which took up
    to a fifth of the time of an AugMix view.
    """

    def compile_later(function: Callable) -> Part:
        return _cached(Part(function, _every({"_nrt": False, "forceinline": True, **options}), False))

    return compile_later if function is None else compile_later(function)


@cache
def cache_folder() -> str:
    """Return the folder for compiled kernels: in NUMBA_CACHE_DIR, else beside the sources, else in the user's cache.

    Where that cannot be made or written (no home, HOME=/), it is one of temporary files, the same for later processes.
    """
    name, base = _folder_name(), _base_folder()
    if base is not None:
        with suppress(OSError):
            (base / name).mkdir(parents=True, exist_ok=True)
            if os.access(base / name, os.W_OK | os.X_OK):
                return str(base / name)
    return _temporary_folder(name)


def _folder_name() -> str:
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*.py")):
        digest.update(path.relative_to(_SOURCES).as_posix().encode() + path.read_bytes())
    return f"kernels-{digest.hexdigest()[:16]}"


@cache
def shared_folder() -> Path | None:
    """Return `cache_folder()`; None if no other process would use it too."""
    folder = Path(cache_folder())
    return folder if folder.name == _folder_name() else None


@cache
def shipped_folder() -> Path | None:
    """Return the folder beside the sources if it has been made but cannot be written, as in a container; else None.

    Only whoever can change the sources can write there.
    """
    folder = _SOURCES / "__pycache__" / _folder_name()
    return folder if folder.is_dir() and not os.access(folder, os.W_OK) else None


def mark_of(kernels: str) -> str:
    """Return the name of the file that says, in a cache's folder, that it has these kernels for this CPU."""
    numba_compiles_for = cpu_target.target_context.codegen().magic_tuple()
    target = repr((numba.__version__, sys.version_info[:2], numba_compiles_for))
    return f"{kernels}.{hashlib.sha256(target.encode()).hexdigest()[:16]}.whole"


def are_kept(kernels: str) -> bool:
    """Return whether the cache on disk has what `mark_kept` has marked."""
    folders = (shared_folder(), shipped_folder())
    return any(folder is not None and (folder / mark_of(kernels)).exists() for folder in folders)


def mark_kept(kernels: str) -> None:
    """Note in the cache that it has these kernels, whose names their caller has chosen.

    Raises:
        OSError: The note, or a kernel since the last call, could not be written.
        RuntimeError: numba could not store a kernel.
    """
    unsaved = _unsaved.copy()
    _unsaved.clear()
    if unsaved:
        raise unsaved[0]
    Path(cache_folder(), mark_of(kernels)).touch()


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

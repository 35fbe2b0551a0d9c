"""Compiled kernels are kept on disk, follow every kernel source, and work where they cannot be kept."""

import errno
import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from numba.core.caching import IndexDataCacheFile

import fastmagn_kernels
from fastmagn_kernels import compiling
from fastmagn_kernels.compiling import jit

SOURCES = Path(fastmagn_kernels.__file__).parent
DRAW_SIGMA = """
from fastmagn_kernels.random.draws import draw_sigma
print(draw_sigma(0, 5, 0, 1, 2, 1.0), sum(draw_sigma.stats.cache_hits.values()))
"""


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("no compiled object")]
)
def test_a_kernel_that_cannot_be_kept_is_compiled_for_this_process(fault, monkeypatch, tmp_path):
    tried = []
    monkeypatch.setattr(compiling, "_unsaved", [])
    monkeypatch.setattr(compiling, "cache_folder", lambda: str(tmp_path))

    def refuse(self, key, data):
        tried.append(key)
        raise fault

    monkeypatch.setattr(IndexDataCacheFile, "save", refuse)
    twice = jit(lambda number: 2 * number)
    assert twice(21) == 42
    assert tried
    assert twice(4) == 8
    with pytest.raises(type(fault)):  # nobody is told that it is kept
        compiling.mark_kept("twice")
    assert not any(tmp_path.glob("twice*"))
    compiling.mark_kept("another")


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_file_that_a_power_cut_has_emptied_is_written_again(suffix, tmp_path):
    """In processes of their own, as each process reads the files once."""
    copy_of_the_kernels(tmp_path)
    assert draw_in_a_process(tmp_path)[1] == 0
    for path in (tmp_path / "cache").rglob(f"*.draw_sigma-*.{suffix}"):
        path.write_bytes(b"")
    assert draw_in_a_process(tmp_path)[1] == 0
    assert draw_in_a_process(tmp_path)[1] == 1


HALF = """
from fastmagn_kernels.compiling import jit

@jit
def half(number):
    return number / 2

print(half(3), half(3j), sum(half.stats.cache_hits.values()))
"""


def test_a_file_with_another_signatures_code_is_not_run(tmp_path):
    """numba writes a function's index first and the code of a signature later: a process may be killed in between."""
    (tmp_path / "own.py").write_text(HALF)
    environment = {**os.environ, "PYTHONPATH": str(SOURCES.parent), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def halves() -> str:
        command = [sys.executable, "own.py"]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert halves() == "1.5 1.5j 0\n"
    assert halves() == "1.5 1.5j 2\n"
    one, two = (tmp_path / "cache").rglob("own.half-*.nbc")
    one.rename(tmp_path / "between")
    two.rename(one)
    (tmp_path / "between").rename(two)
    assert halves() == "1.5 1.5j 0\n"
    assert halves() == "1.5 1.5j 2\n"


def test_one_process_at_a_time_changes_an_index(monkeypatch):
    tried = []

    def save(self, key, data):
        with open(Path(self._cache_path, ".lock")) as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tried.append(key)

    monkeypatch.setattr(IndexDataCacheFile, "save", save)
    thrice = jit(lambda number: 3 * number)
    assert thrice(14) == 42
    assert len(tried) == 1
    with open(Path(thrice._cache.cache_path, ".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it is free again


def copy_of_the_kernels(folder: Path) -> Path:
    return Path(shutil.copytree(SOURCES, folder / SOURCES.name, ignore=shutil.ignore_patterns("__pycache__")))


def draw_in_a_process(folder: Path, cache: str = "cache", before: str = "") -> tuple[float, int]:
    """A number that a kernel of the copied sources draws, and how many kernels that took were in the cache.

    The cache is a folder in `folder`; without a name, it is beside the sources. `before` is Python to run first.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / cache) if cache else ""}
    command = [sys.executable, "-c", before + DRAW_SIGMA]
    shown = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    sigma, hits = shown.stdout.split()
    return float(sigma), int(hits)


CANNOT_WRITE_BESIDE_SOURCES = """
import os
honest = os.access
os.access = lambda path, mode: "fastmagn_kernels" not in str(path) and honest(path, mode)
"""


def test_what_an_image_brings_beside_the_sources_is_read_where_it_cannot_be_written(tmp_path):
    sources = copy_of_the_kernels(tmp_path)
    sigma, hits = draw_in_a_process(tmp_path, cache="")
    assert hits == 0
    kept = sorted((sources / "__pycache__").rglob("*.nb?"))
    assert kept
    assert draw_in_a_process(tmp_path, "own", CANNOT_WRITE_BESIDE_SOURCES) == (sigma, 1)
    assert not list((tmp_path / "own").rglob("*.nb?"))
    for path in kept:
        path.write_bytes(b"")  # damaged, and not ours to write
    assert draw_in_a_process(tmp_path, "own", CANNOT_WRITE_BESIDE_SOURCES) == (sigma, 0)
    assert draw_in_a_process(tmp_path, "own", CANNOT_WRITE_BESIDE_SOURCES) == (sigma, 1)
    assert draw_in_a_process(tmp_path, "other") == (sigma, 0)  # a folder that is asked for, where all can be written


def test_a_mark_says_what_is_kept_for_this_cpu_and_numba(tmp_path, monkeypatch):
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    own.mkdir()
    shipped.mkdir()
    monkeypatch.setattr(compiling, "_unsaved", [])
    monkeypatch.setattr(compiling, "cache_folder", lambda: str(own))
    monkeypatch.setattr(compiling, "shared_folder", lambda: own)
    monkeypatch.setattr(compiling, "shipped_folder", lambda: None)
    assert not compiling.are_kept("corrupt fog")
    compiling.mark_kept("corrupt fog")
    assert compiling.are_kept("corrupt fog")
    assert not compiling.are_kept("corrupt frost")
    (mark,) = own.iterdir()
    mark.rename(shipped / mark.name)
    assert not compiling.are_kept("corrupt fog")
    monkeypatch.setattr(compiling, "shipped_folder", lambda: shipped)
    assert compiling.are_kept("corrupt fog")
    monkeypatch.setattr(compiling.numba, "__version__", "0.0")
    assert not compiling.are_kept("corrupt fog")


def cache_folder_of(sources: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(compiling, "_SOURCES", sources)
    return compiling.cache_folder.__wrapped__()


def test_a_change_in_any_room_or_a_move_between_rooms_gives_another_cache(tmp_path, monkeypatch):
    sources = copy_of_the_kernels(tmp_path)
    files = sorted(sources.rglob("*.py"))
    rooms = {path.relative_to(sources).parts[0] for path in files if path.parent != sources}
    assert rooms == {"random", "augmix_cpu", "augmix_cuda", "corruptions", "policy_cpu", "policy_cuda", "prime_cpu"}
    folders = [cache_folder_of(sources, monkeypatch)]
    for path in files:
        with path.open("a") as file:
            file.write("\n")
        folders.append(cache_folder_of(sources, monkeypatch))
    (sources / "random" / "rng.py").rename(sources / "corruptions" / "rng.py")
    folders.append(cache_folder_of(sources, monkeypatch))
    assert len(set(folders)) == len(files) + 2
    assert cache_folder_of(sources, monkeypatch) == folders[-1]


@pytest.fixture
def installed_elsewhere(tmp_path, monkeypatch) -> Path:
    """The folder of temporary files, where the sources cannot be written and no variable names a cache."""
    honest, temporary = os.access, tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != SOURCES and honest(path, mode))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(compiling.config, "CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return temporary


def nobody(user: int) -> None:
    raise KeyError(user)


@pytest.mark.parametrize("home", ["none", "cannot be written"])
def test_without_a_home_all_processes_of_the_user_share_one_folder(home, installed_elsewhere, tmp_path, monkeypatch):
    if home == "none":
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(pwd, "getpwuid", nobody)  # as of a container's numeric user
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
    folders = {cache_folder_of(SOURCES, monkeypatch) for _ in range(3)}  # one a process
    (folder,) = map(Path, folders)
    assert folder.is_dir()
    assert folder.parent == installed_elsewhere / f"fastmagn-{os.geteuid()}"
    assert folder.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("taken", ["open to all", "a link", "a file", "another user's"])
def test_a_shared_name_that_is_not_safe_is_not_used(taken, installed_elsewhere, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    name = installed_elsewhere / f"fastmagn-{os.geteuid()}"
    if taken == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        name.symlink_to(tmp_path / "theirs")
    elif taken == "a file":
        name.touch()
    else:
        name.mkdir()
        name.chmod(0o777 if taken == "open to all" else 0o700)
    if taken == "another user's":
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        name.rename(installed_elsewhere / f"fastmagn-{user + 1}")
    folders = [Path(cache_folder_of(SOURCES, monkeypatch)) for _ in range(2)]
    assert all(folder.name.startswith("fastmagn-kernels-") and folder.is_dir() for folder in folders)
    assert folders[0] != folders[1]


def test_a_kernel_is_compiled_again_when_what_it_inlines_has_changed(tmp_path):
    """numba by itself watches draws.py only, where the kernel is, and not rng.py, from which it inlines `uniform`."""
    sources = copy_of_the_kernels(tmp_path)
    sigma, hits = draw_in_a_process(tmp_path)
    assert (0 < sigma < 1, hits) == (True, 0)
    assert draw_in_a_process(tmp_path) == (sigma, 1)
    rng = sources / "random" / "rng.py"
    changed = rng.read_text().replace("_TWO_TO_MINUS_32 = 2.0**-32", "_TWO_TO_MINUS_32 = 2.0**-33")
    rng.write_text(changed)
    assert draw_in_a_process(tmp_path) == (sigma / 2, 0)


def _identity(numbers):
    numbers[0] = numbers[0]


def test_cuda_kernels_are_kept_in_the_same_folder(monkeypatch):
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
    from numba import types

    from fastmagn_kernels.augmix_cuda.compiling import machine_code

    made = []

    def source():
        made.append("compiled")
        return _identity, types.void(types.int32[::1])

    for kept in Path(compiling.cache_folder()).glob("identity*"):
        kept.unlink()  # by an earlier run of this test
    code = machine_code("identity", source, (9, 0))
    assert code[:4] == b"\x7fELF"
    assert [path.read_bytes()[: len(code)] for path in Path(compiling.cache_folder()).glob("identity*")] == [code]
    assert machine_code("identity", source, (9, 0)) == code
    assert made == ["compiled"]


CODE = b"\x7fELF" + bytes(range(256))


@pytest.fixture
def cuda_cache(tmp_path, monkeypatch):
    """The CUDA engine's compiling, with its own folder and a compiler that does nothing but count."""
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: install 'fastmagn[test]'")
    from fastmagn_kernels.augmix_cuda import compiling as cuda_compiling

    monkeypatch.setattr(cuda_compiling, "cache_folder", lambda: str(tmp_path))
    monkeypatch.setattr(cuda_compiling, "compile_ptx", lambda *source, compute_capability: "ptx")
    monkeypatch.setattr(cuda_compiling, "assemble", lambda ptx, capability: CODE)
    return cuda_compiling


def cuda_code(cuda_compiling) -> tuple[bytes, int]:
    """The machine code, and how often it was compiled for that."""
    made = []
    code = cuda_compiling.machine_code("a", lambda: made.append("compiled") or (), (9, 0))
    return code, len(made)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_does_not_end_a_run_and_leaves_no_file(cuda_cache, tmp_path, monkeypatch):
    tried = []

    def on_a_full_disk(dir, prefix):
        tried.append(tmp_path / f"{prefix}.partial")
        tried[-1].touch()
        return os.open("/dev/full", os.O_WRONLY), str(tried[-1])

    monkeypatch.setattr(cuda_cache, "tempfile", SimpleNamespace(mkstemp=on_a_full_disk))
    assert cuda_code(cuda_cache) == (CODE, 1)
    assert len(tried) == 1
    assert list(tmp_path.iterdir()) == []
    assert cuda_code(cuda_cache) == (CODE, 1)


def test_a_cache_folder_that_nobody_can_write_to_does_not_end_a_run(cuda_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_cache, "cache_folder", lambda: str(tmp_path / "missing"))
    assert cuda_code(cuda_cache) == (CODE, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:50] + bytes([content[50] ^ 1]) + content[51:],
        lambda content: bytes(len(content)),
        lambda content: CODE,
    ],
    ids=["empty", "short", "last byte lost", "half", "one bit", "zeros", "no digest"],
)
def test_a_damaged_file_is_compiled_again_and_replaced(cuda_cache, damage, tmp_path):
    assert cuda_code(cuda_cache) == (CODE, 1)
    assert cuda_code(cuda_cache) == (CODE, 0)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert cuda_code(cuda_cache) == (CODE, 1)
    assert cuda_code(cuda_cache) == (CODE, 0)
    assert list(tmp_path.iterdir()) == [file]

"""The contents of image files, read once; and the cache that remembers them."""

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastmagn.data.files import content
from fastmagn.data.files.content import content_digests
from fastmagn.errors import InputError


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The user's cache, empty; files are settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(content, "_SETTLED_S", -3600.0)
    return tmp_path / "cache" / "fastmagn" / "contents"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    for i in range(200):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(bytes([i]) * (i + 1))
    return tmp_path / "images"


NAMES = [f"{i}.jpg" for i in range(200)]


def true_digests(folder: Path, names: list[str] = NAMES) -> list[bytes]:
    return [hashlib.sha256((folder / name).read_bytes()).digest() for name in names]


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of the files that are read."""
    names, honest = [], content._digest
    monkeypatch.setattr(content, "_digest", lambda path: names.append(os.path.basename(path)) or honest(path))
    return names


def test_two_parts_of_a_folder_do_not_forget_each_other(cache, folder, read):
    """Shards of training and test images lie in one folder."""
    for _ in range(2):
        assert content_digests(folder, NAMES[:120]) == true_digests(folder, NAMES[:120])
        assert content_digests(folder, NAMES[120:]) == true_digests(folder, NAMES[120:])
    assert sorted(read) == sorted(NAMES)


def replace(folder: Path, names: list[str], tmp_path: Path) -> None:
    """The same bytes under the same names, in new files."""
    for name in names:
        (tmp_path / "new").write_bytes((folder / name).read_bytes())
        os.replace(tmp_path / "new", folder / name)


def test_the_cache_holds_one_state_of_each_file(cache, folder, read, tmp_path):
    """Images that are staged anew for each job have new inodes. The other split, of the same root, stays known."""
    for part in (NAMES[:120], NAMES[120:]):
        content_digests(folder, part)
    (place,) = (path for path in cache.iterdir() if path.suffix != ".lock")
    for _ in range(4):
        replace(folder, NAMES[:120], tmp_path)
        read.clear()
        assert content_digests(folder, NAMES[:120]) == true_digests(folder, NAMES[:120])
        assert content_digests(folder, NAMES[120:]) == true_digests(folder, NAMES[120:])
        assert content_digests(folder, NAMES[:120]) == true_digests(folder, NAMES[:120])
        assert sorted(read) == sorted(NAMES[:120])
        assert place.stat().st_size == 52 + 48 * len(NAMES)


def test_the_cache_of_one_folder_drops_other_names_beyond_the_bound(cache, folder, read, monkeypatch):
    monkeypatch.setattr(content, "_MAX_CACHE_BYTES", 48 * 120)
    for part, kept in ((NAMES[:100], 100), (NAMES[100:], 120), (NAMES[:100], 120)):
        content_digests(folder, part)
        (place,) = (path for path in cache.iterdir() if path.suffix != ".lock")
        assert place.stat().st_size == 52 + 48 * kept
    read.clear()
    assert content_digests(folder, NAMES[:100]) == true_digests(folder, NAMES[:100])
    assert read == []


def test_images_that_take_more_than_the_bound_are_read_once(cache, folder, read, monkeypatch):
    monkeypatch.setattr(content, "_MAX_CACHE_BYTES", 48 * 20)
    for _ in range(2):
        assert content_digests(folder, NAMES) == true_digests(folder)
    assert sorted(read) == sorted(NAMES)


def test_unchanged_files_are_read_once_and_changed_ones_again(cache, folder, read):
    assert content_digests(folder, NAMES) == true_digests(folder)
    assert sorted(read) == sorted(NAMES)
    read.clear()
    assert content_digests(folder, NAMES) == true_digests(folder)
    assert content_digests(folder, NAMES[::-1]) == true_digests(folder)[::-1]
    assert read == []
    before = (folder / "7.jpg").stat()
    time.sleep(0.02)  # more than a tick of the file system's clock
    (folder / "7.jpg").write_bytes(b"x" * before.st_size)
    os.utime(folder / "7.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_digests(folder, NAMES) == true_digests(folder)
    assert read == ["7.jpg"]


def test_a_file_that_has_just_changed_is_not_remembered(cache, folder, read, monkeypatch):
    monkeypatch.setattr(content, "_SETTLED_S", 3600.0)
    content_digests(folder, NAMES)
    content_digests(folder, NAMES)
    assert len(read) == 400
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_folders_do_not_share_entries(cache, folder, tmp_path, read):
    os.rename(folder, tmp_path / "moved")
    folder.mkdir()
    (folder / "0.jpg").write_bytes(b"other")
    assert content_digests(tmp_path / "moved", NAMES) == true_digests(tmp_path / "moved")
    assert content_digests(folder, ["0.jpg"]) == [hashlib.sha256(b"other").digest()]


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "empty", "of another version", "of an earlier version", "a folder"]
)
def test_a_damaged_cache_is_made_anew(cache, folder, read, damage):
    content_digests(folder, NAMES)
    (place,) = (path for path in cache.iterdir() if path.suffix != ".lock")
    whole = place.read_bytes()
    if damage == "a folder":
        place.unlink()
        place.mkdir()
    else:
        flipped = bytearray(whole)
        flipped[-3] ^= 4
        earlier = b"fastmagn contents 1\n" + whole[20:]
        spoilt = {"cut": whole[:-48], "flipped": flipped, "empty": b"", "of an earlier version": earlier}
        place.write_bytes(spoilt.get(damage, b"x" + whole[1:]))
    read.clear()
    assert content_digests(folder, NAMES) == true_digests(folder)
    assert len(read) == 200
    assert damage == "a folder" or place.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_left_alone(folder, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("a file where the cache's folder should be")
    for home in (str(tmp_path / "taken"), "/proc/nowhere"):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        assert content_digests(folder, NAMES) == true_digests(folder)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert content_digests(folder, NAMES) == true_digests(folder)


def test_the_cache_stays_below_its_bound(cache, tmp_path, monkeypatch):
    """The caches that were not used for longest are removed; each holds 20 entries of 48 bytes and a head of 52."""
    monkeypatch.setattr(content, "_MAX_CACHE_BYTES", 2 * (20 * 48 + 52))
    roots = [tmp_path / f"root{i}" for i in range(4)]
    for root in roots:
        root.mkdir()
        for name in NAMES[:20]:
            (root / name).write_bytes(name.encode())
    for root in (*roots[:2], roots[0], roots[3]):
        content_digests(root, NAMES[:20])
        time.sleep(0.02)
    kept = {content._cache_file(root) for root in (roots[0], roots[3])}
    assert {path for path in cache.iterdir() if path.suffix != ".lock"} == kept


def test_a_file_that_is_gone_is_named(cache, folder):
    (folder / "3.jpg").unlink()
    with pytest.raises(InputError, match=r"images/3\.jpg: cannot be read \(No such file or directory\)"):
        content_digests(folder, NAMES)


@pytest.mark.process
def test_of_several_processes_one_reads_the_files(cache, folder, tmp_path):
    program = f"""
import sys, time
from fastmagn.data.files import content
content._SETTLED_S = -3600.0
honest, count = content._digest, 0
def slow(path):
    global count
    count += 1
    time.sleep(0.01)
    return honest(path)
content._digest = slow
content.content_digests({str(folder)!r}, {NAMES!r})
print(count)
"""
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [process.communicate(timeout=60)[0] for process in started]
    assert sorted(int(count) > 0 for count in counts) == [False, False, True]


@pytest.mark.process
def test_nobody_waits_for_what_the_cache_knows(cache, folder, read):
    """Another process holds the cache's lock."""
    content_digests(folder, NAMES)
    lock = content._cache_file(folder).with_suffix(".lock")
    program = f"""
from pathlib import Path
from fastmagn.machine.waiting_lock import waiting_lock
with waiting_lock(Path({str(lock)!r})) as is_held:
    print(is_held, flush=True)
    input()
"""
    with (
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        try:
            assert holder.stdout.readline() == b"True\n"
            read.clear()
            found = pool.submit(content_digests, folder, NAMES).result(timeout=30)
            assert lock.exists()
        finally:
            holder.kill()
    assert found == true_digests(folder)
    assert read == []

"""Making -C sets where something stands in the way: a taken folder, a full disk, an interruption."""

import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from fastmagn.corruptions import available_corruptions
from fastmagn.errors import InputError
from fastmagn.evaluation.corrupt_command import main
from fastmagn.evaluation.corrupted_set import CorruptConfig, make_corrupted_set
from tests.helpers.processes import ROOT, command_environment
from tests.helpers.tiers import slow

pytestmark = pytest.mark.skipif("frost" not in available_corruptions(), reason="the frost pictures are not installed")


def small(out: Path) -> CorruptConfig:
    return CorruptConfig(out=out, dataset="digits", num_images=2, corruption_set="c15")


def verify(out: Path) -> int:
    return main(["--verify", "--out", str(out)])


@pytest.mark.parametrize("kind", ["folder", "file", "mount"])
def test_what_stands_at_out_stays(tmp_path, monkeypatch, kind):
    out = tmp_path / "c"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    if kind == "mount":
        monkeypatch.setattr(os.path, "ismount", lambda path: path == out)
    message = {
        "folder": r"out: .*c exists and is not empty; nothing is ever overwritten\. Give another --out",
        "file": r"out: .*c is a file; expected a folder that does not exist yet",
        "mount": r"out: .*c is a mount point, .* Give a folder inside it",
    }[kind]
    with pytest.raises(InputError, match=message):
        make_corrupted_set(small(out))
    assert (out if kind == "file" else out / "mine.txt").read_text() == "mine"
    assert os.listdir(tmp_path) == ["c"]


def test_an_empty_folder_is_filled_also_through_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "c").symlink_to("disk")
    make_corrupted_set(small(tmp_path / "c"))
    assert (tmp_path / "c").is_symlink()
    assert verify(tmp_path / "disk") == 0
    assert sorted(os.listdir(tmp_path)) == ["c", "disk"]


def test_the_working_directory_is_filled_and_is_still_there(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    make_corrupted_set(small(Path()))
    assert "manifest.json" in os.listdir()
    assert verify(Path()) == 0
    assert os.listdir(tmp_path) == ["here"]


def test_the_disk_is_measured_before_anything_is_written(tmp_path, monkeypatch):
    make_corrupted_set(small(tmp_path / "c"))
    needed = sum(path.stat().st_size for path in (tmp_path / "c").glob("*.npy")) + 65_536
    usage = namedtuple("Usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(needed - 1))
    with pytest.raises(InputError, match=rf"{tmp_path} has {needed - 1:,} bytes free; the set needs {needed:,}\."):
        make_corrupted_set(small(tmp_path / "d"))
    assert os.listdir(tmp_path) == ["c"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(needed))
    make_corrupted_set(small(tmp_path / "d"))


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def fill(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(InputError, match=r"out: .*c cannot be written \(No space left on device; [\d,]+ bytes are"):
        make_corrupted_set(small(tmp_path / "c"))
    assert os.listdir(tmp_path) == []


def test_a_set_is_made_where_folders_cannot_be_flushed(tmp_path, monkeypatch):
    fsync, refused = os.fsync, []

    def refuse_folders(descriptor: int) -> None:  # as some network file systems do
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            refused.append(descriptor)
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    make_corrupted_set(small(tmp_path / "c"))
    assert refused
    assert verify(tmp_path / "c") == 0
    assert os.listdir(tmp_path) == ["c"]


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    def appear(line: str) -> None:
        if line.startswith("fog"):
            (tmp_path / "c").mkdir()
            (tmp_path / "c" / "mine.txt").write_text("mine")

    with pytest.raises(InputError, match=r"cannot be written \(Directory not empty"):
        make_corrupted_set(small(tmp_path / "c"), appear)
    assert os.listdir(tmp_path) == ["c"]
    assert os.listdir(tmp_path / "c") == ["mine.txt"]


def start(arguments: list[str], prepare) -> subprocess.Popen:
    """The command in a process of its own; `prepare` runs in it first."""
    command = [sys.executable, "-m", "fastmagn.corrupt", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=command_environment(), text=True, preexec_fn=prepare, **pipes)


@pytest.mark.slow
@pytest.mark.process
def test_a_write_that_fails_is_one_line_and_leaves_nothing(tmp_path):
    def limit() -> None:  # files of 599 digits have 9 MB
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))

    process = start(["--dataset", "digits", "--out", str(tmp_path / "c")], limit)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2
    assert stderr.startswith(f"error: out: {tmp_path / 'c'} cannot be written (File too large; 174,")
    assert stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, *slow(signal.SIGTERM, signal.SIGKILL)])
def test_interruptions_leave_no_set(tmp_path, number):
    (tmp_path / "c.partial-old").mkdir()
    (tmp_path / "c.partial-old" / "fog.npy").write_text("another run's")
    out = tmp_path / "c"
    process = start(
        ["--dataset", "digits", "--out", str(out)], lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    )
    while len(list(tmp_path.glob("c.partial-*/*.npy"))) < 4 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number], stderr
    assert not out.exists()
    left = [path.name for path in tmp_path.iterdir() if path.name != "c.partial-old"]
    assert (tmp_path / "c.partial-old" / "fog.npy").read_text() == "another run's"
    if number == signal.SIGKILL:
        assert len(left) == 2  # and the lock's file
    else:
        assert left == []
        assert stderr == f"interrupted by {signal.Signals(number).name}\n"
    make_corrupted_set(small(out))
    assert verify(out) == 0
    assert sorted(os.listdir(tmp_path)) == ["c", "c.partial-old"]


def test_a_set_that_another_process_makes_is_refused_at_once_and_left_alone(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".c.lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=rf"out: {tmp_path / 'c'} is being made by another process; wait for it"):
            make_corrupted_set(small(tmp_path / "c"))
    finally:
        holder.kill()
        holder.wait()
    assert os.listdir(tmp_path) == [".c.lock"]
    make_corrupted_set(small(tmp_path / "c"))  # the kernel has released the dead holder's lock
    assert os.listdir(tmp_path) == ["c"]


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_without_locks_what_another_process_may_be_writing_stays(tmp_path, monkeypatch):
    (tmp_path / "c.partial-7-abcdef").mkdir()

    def refuse(*_) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    make_corrupted_set(small(tmp_path / "c"))
    assert sorted(set(os.listdir(tmp_path)) - {".c.lock"}) == ["c", "c.partial-7-abcdef"]

"""What killed processes leave is found and removed, what living ones write stays, whatever their process ids."""

import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fastmagn.machine import leftovers
from fastmagn.machine.files import replace_file, replace_folder, write_text
from fastmagn.machine.leftovers import names_locked, remove_leftovers

pytestmark = pytest.mark.process


def write(path: Path, text: str) -> None:
    with replace_folder(path) as folder:
        write_text(folder / "text", text)


def forked(work: Callable[[], None]) -> int:
    """A process that is in the midst of `work`, which calls `wait`; its number."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        work(lambda: (os.write(write_end, b"."), time.sleep(60)))
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 1) == b"."
    os.close(read_end)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def writes_a_folder(path: Path) -> Callable:
    def work(wait: Callable[[], object]) -> None:
        with replace_folder(path) as folder:
            (folder / "text").write_text("half")
            wait()

    return work


def writes_a_file(path: Path) -> Callable:
    def work(wait: Callable[[], object]) -> None:
        with replace_file(path) as file:
            file.write(b"half")
            wait()

    return work


def is_between_the_renames(path: Path) -> Callable:
    def work(wait: Callable[[], object]) -> None:
        rename = os.rename

        def renaming(source: Path, target: Path) -> None:
            rename(source, target)
            wait()

        os.rename = renaming
        write(path, "new")

    return work


@pytest.mark.parametrize("work", [writes_a_folder, writes_a_file])
def test_what_a_living_process_writes_stays_and_what_a_killed_one_wrote_goes(work, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in each of two containers
    pid = forked(work(tmp_path / "name"))
    remove_leftovers(tmp_path / "name")
    (left,) = os.listdir(tmp_path)
    assert left.startswith("name.partial-1-")
    kill(pid)
    remove_leftovers(tmp_path / "name")
    assert os.listdir(tmp_path) == []


def test_the_next_writer_of_the_same_name_removes_what_was_left(tmp_path):
    kill(forked(writes_a_file(tmp_path / "file")))
    kill(forked(writes_a_folder(tmp_path / "folder")))
    kill(forked(writes_a_file(tmp_path / "other")))
    write_text(tmp_path / "file", "new")
    write(tmp_path / "folder", "new")
    names = sorted(os.listdir(tmp_path))
    assert names[:2] == ["file", "folder"]
    assert len(names) == 3
    assert names[2].startswith("other.partial-")


def test_a_folder_whose_replacement_was_killed_between_two_renames_is_put_back(tmp_path):
    write(tmp_path / "report", "old")
    kill(forked(is_between_the_renames(tmp_path / "report")))
    assert not (tmp_path / "report").exists()
    remove_leftovers(tmp_path / "report")
    assert os.listdir(tmp_path) == ["report"]
    assert (tmp_path / "report" / "text").read_text() == "old"


def test_a_folder_that_a_process_works_in_is_not_a_leftover_while_it_is_filled(tmp_path, monkeypatch):
    report = tmp_path / "report"
    report.mkdir()
    (report / "old").write_text("")
    rename, starts, goes_on = os.rename, os.pipe(), os.pipe()

    def rename_and_wait(source: Path, target: Path) -> None:
        rename(source, target)
        os.write(starts[1], b".")
        os.read(goes_on[0], 1)
        monkeypatch.setattr(os, "rename", rename)

    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.chdir(report)
            monkeypatch.setattr(os, "rename", rename_and_wait)
            write(report, "new")
            status = 0
        finally:
            os._exit(status)
    os.read(starts[0], 1)
    threading.Timer(0.3, os.write, (goes_on[1], b".")).start()
    remove_leftovers(report)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir(report) == ["text"]


def test_leftovers_named_by_the_process_id_alone_are_removed_too(tmp_path):
    (tmp_path / "report.old-1").mkdir()
    (tmp_path / "report.old-1" / "text").write_text("old")
    (tmp_path / "report.partial-1").mkdir()
    (tmp_path / "report.partial-mine").mkdir()
    remove_leftovers(tmp_path / "report")
    assert sorted(os.listdir(tmp_path)) == ["report", "report.partial-mine"]
    assert (tmp_path / "report" / "text").read_text() == "old"


def test_many_writers_of_one_folder_leave_one_whole_folder(tmp_path):
    """Each replaces it 20 times."""
    pids = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for _ in range(20):
                    write(tmp_path / "report", str(number))
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
    assert os.listdir(tmp_path) == ["report"]
    assert (tmp_path / "report" / "text").read_text() in "0123"


def test_a_file_with_leftovers_is_written_under_the_lock_without_a_wait(tmp_path, monkeypatch):
    def waits(seconds: float) -> None:
        raise AssertionError("it waits for its own lock")

    monkeypatch.setattr(leftovers.time, "sleep", waits)
    (tmp_path / "evaluation.json.partial-99999-abcdef").write_bytes(b"half")
    with names_locked(tmp_path):
        write_text(tmp_path / "evaluation.json", "new")
    assert os.listdir(tmp_path) == ["evaluation.json"]


def test_a_large_leftover_is_named_with_its_size(tmp_path, capsys):
    with (tmp_path / "set.partial-1-abcdef").open("wb") as file:
        file.truncate(2_900_000_000)
    (tmp_path / "set.partial-2-abcdef").write_bytes(b"small")
    remove_leftovers(tmp_path / "set")
    assert os.listdir(tmp_path) == []
    line = f"warning: {tmp_path}/set.partial-1-abcdef removed: 2,900 MB that a killed process left.\n"
    assert capsys.readouterr().out == line


def test_without_locks_a_days_age_tells(tmp_path, monkeypatch):
    def unsupported(*arguments) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    (tmp_path / "set.partial-1-abcdef").mkdir()
    write(tmp_path / "set", "new")
    assert sorted(os.listdir(tmp_path)) == ["set", "set.partial-1-abcdef"]
    now = time.time()
    monkeypatch.setattr(leftovers.time, "time", lambda: now + 90_000)
    remove_leftovers(tmp_path / "set")
    assert os.listdir(tmp_path) == ["set"]


def test_a_folder_that_another_program_has_locked_is_no_obstacle(tmp_path, monkeypatch):
    """As `flock runs python -m fastmagn.report ...` does."""
    monkeypatch.setattr(leftovers, "PATIENCE_S", 0.05)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with names_locked(tmp_path):
        write(tmp_path / "report", "new")
    os.close(descriptor)
    assert os.listdir(tmp_path) == ["report"]

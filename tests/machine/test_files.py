"""Files and folders that are replaced: whole or not at all, and nothing is left beside them."""

import errno
import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest

from fastmagn.errors import InputError
from fastmagn.machine.files import check_writable, replace_file, replace_folder, write_json, write_text


def write(path: Path, text: str, **options) -> None:
    with replace_folder(path, **options) as folder:
        write_text(folder / "text", text)


@pytest.fixture
def old(tmp_path) -> Path:
    """A folder that is there already."""
    write(tmp_path / "folder", "old")
    return tmp_path / "folder"


def test_a_folder_takes_the_place_of_the_old_one(old):
    (old / "more").write_text("more")
    write(old, "new")
    assert os.listdir(old.parent) == ["folder"]
    assert os.listdir(old) == ["text"]
    assert (old / "text").read_text() == "new"


def test_a_folder_that_is_not_finished_leaves_the_old_one(old):
    def fail_halfway() -> None:
        with replace_folder(old) as folder:
            write_text(folder / "text", "new")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail_halfway()
    assert os.listdir(old.parent) == ["folder"]
    assert (old / "text").read_text() == "old"


def test_a_rename_that_fails_leaves_the_old_one(old, monkeypatch):
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if ".partial-" in Path(source).name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write(old, "new")
    assert os.listdir(old.parent) == ["folder"]
    assert (old / "text").read_text() == "old"


def test_a_failure_of_the_disk_has_the_name_of_what_was_written(tmp_path, monkeypatch):
    """write and fsync do not know it."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for path, work in ((tmp_path / "file", lambda path: write_text(path, "new")), (tmp_path / "folder", numpy_in)):
        with pytest.raises(OSError, match="No space left on device") as error:
            work(path)
        assert error.value.filename == str(path)
    assert os.listdir(tmp_path) == []


def numpy_in(path: Path) -> None:
    with replace_folder(path) as folder, (folder / "a.npy").open("wb") as file:
        np.save(file, np.zeros(3))
        os.fsync(file.fileno())


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_is_not_replaced_by_a_folder(tmp_path, overwrite):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError):
        write(tmp_path / "file", "new", overwrite=overwrite)
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("linked", [False, True])
def test_a_special_file_is_not_replaced(tmp_path, linked):
    """As a device such as /dev/null, which root could replace by a file."""
    special = path = tmp_path / "special"
    os.mkfifo(special)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(special)
    with pytest.raises(InputError, match=rf"^out: {path} is not a regular file; name another --out\.$"):
        check_writable(path, path.parent)
    with pytest.raises(OSError, match="is not a regular file"):
        write_json(path, {})
    assert stat.S_ISFIFO(os.stat(path).st_mode)
    assert path.is_symlink() == linked


def test_without_overwriting_only_an_empty_folder_is_replaced(old):
    with pytest.raises(OSError, match="not empty"):
        write(old, "new", overwrite=False)
    assert os.listdir(old.parent) == ["folder"]
    assert (old / "text").read_text() == "old"
    (old / "text").unlink()
    write(old, "new", overwrite=False)
    assert (old / "text").read_text() == "new"
    assert os.listdir(old.parent) == ["folder"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_empty_folder_is_kept_and_filled(tmp_path, overwrite):
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o2775)
    before = folder.stat()
    with replace_folder(folder, overwrite=overwrite) as partial:
        write_text(partial / "text", "new")
        (partial / "more").mkdir()
        assert os.listdir(folder) == []  # what is half written cannot be seen there
    after = folder.stat()
    assert (after.st_ino, after.st_mode, after.st_gid) == (before.st_ino, before.st_mode, before.st_gid)
    assert sorted(os.listdir(folder)) == ["more", "text"]
    assert (folder / "text").read_text() == "new"
    assert os.listdir(tmp_path) == ["folder"]


def test_the_working_directory_is_kept_and_an_older_content_goes(old, monkeypatch):
    (old / "more").mkdir()
    (old / "more" / "text").write_text("old")
    monkeypatch.chdir(old)
    write(Path(), "new")
    assert os.listdir() == ["text"]
    assert Path("text").read_text() == "new"
    assert os.listdir(old.parent) == ["folder"]
    with pytest.raises(OSError, match="not empty"):
        write(Path(), "newer", overwrite=False)
    assert Path("text").read_text() == "new"


def test_a_folder_that_is_replaced_keeps_its_mode(old):
    old.chmod(0o2770)
    write(old, "new")
    assert stat.S_IMODE(old.stat().st_mode) == 0o2770
    assert (old / "text").read_text() == "new"


def write_two(path: Path) -> None:
    with replace_folder(path) as folder:
        for name in ("text", "second"):
            write_text(folder / name, "new")
        os.utime(folder / "text", (0, 0))


@pytest.mark.parametrize("is_empty", [True, False])
def test_a_kept_folder_is_as_before_if_a_move_fails(old, monkeypatch, is_empty):
    """The second of two new files cannot be moved."""
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if Path(source).name == "second":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    if is_empty:
        (old / "text").unlink()
    before = old.stat().st_ino, os.listdir(old)
    monkeypatch.chdir(old)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_two(Path())
    assert (old.stat().st_ino, os.listdir(old)) == before
    assert is_empty or Path("text").read_text() == "old"
    assert os.listdir(old.parent) == ["folder"]


def test_folders_that_cannot_be_flushed_are_no_obstacle(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / "text").read_text() == "new"


def test_a_partial_name_tells_processes_of_one_number_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in each of two containers
    with replace_folder(tmp_path / "logits"), replace_folder(tmp_path / "logits"), replace_file(tmp_path / "a.json"):
        names = sorted(os.listdir(tmp_path))
    assert len(names) == 3
    assert re.fullmatch(r"a\.json\.partial-1-[0-9a-f]{6}", names[0])
    assert all(re.fullmatch(r"logits\.partial-1-[0-9a-f]{6}", name) for name in names[1:])


def test_a_failure_names_the_file_and_not_its_partial_one():
    path = Path("/proc/self/results.json")  # nobody can make it
    with pytest.raises(OSError, match="results") as failure:
        write_text(path, "text")
    assert failure.value.filename == str(path)
    with pytest.raises(OSError, match="results") as failure, replace_folder(path):
        pass
    assert failure.value.filename == os.path.realpath(path)

"""Names and links that point elsewhere, or at nothing: nothing is written outside, and one line says why."""

import hashlib
import io
import os
import tarfile
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torchvision

from fastmagn import evaluate, report, train
from fastmagn.data import load_images
from fastmagn.data.cifar import CIFAR10
from fastmagn.errors import InputError
from fastmagn.evaluation import corrupt_command
from fastmagn.theory import command as theory
from tests.helpers.report_folders import write_run
from tests.hostile.files import npy, write_corrupted_set, write_run_folder

SHORT = ["--device", "cpu", "--train.max_steps", "1", "--train.batch_size", "64", "--eval.num_images", "20"]


@pytest.mark.parametrize("name", ["../fog", "/tmp/fog", "a/../../fog", "a\0fog", ".."])
def test_manifests_of_a_corrupted_set(attack, name):
    def change(manifest: dict) -> None:
        manifest["corruptions"] = [name]
        manifest["files"] = {
            f"{name}.npy": {"bytes": 1, "sha256": "0" * 64},
            "labels.npy": manifest["files"]["fog.npy"],
        }

    folder = write_corrupted_set(attack.folder / "set", {}, change)
    status, errors = attack.run(corrupt_command.main, "--verify", "--out", folder)
    assert status != 0
    assert "is not a plain file name" in errors or "missing" in errors
    attack.note("-C set manifest", f"a file called {name!r}", f"refused: {errors.splitlines()[0]}")


@pytest.mark.parametrize("change", ["num_images -5", "num_images 2^70", "image_shape [2^40, 2^40, 3]", "files []"])
def test_manifests_of_other_values(attack, change):
    field, value = change.split(" ", 1)
    value = eval(value.replace("^", "**"), {})
    folder = write_corrupted_set(attack.folder / "set", {}, lambda manifest: manifest.update({field: value}))
    status, errors = attack.run(corrupt_command.main, "--verify", "--out", folder)
    assert status != 0
    attack.note("-C set manifest", change, f"refused: {errors.splitlines()[0]}")


@pytest.fixture
def served(attack, monkeypatch):
    """A folder that a server on this machine publishes as CIFAR-10's archive; `publish` says with which MD5."""
    monkeypatch.undo()  # the watched network
    monkeypatch.chdir(attack.folder)
    monkeypatch.setenv("no_proxy", "*")
    folder = attack.folder / "served"
    folder.mkdir()
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with HTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)

        def publish(archive: bytes, is_honest: bool) -> None:
            (folder / "cifar-10-python.tar.gz").write_bytes(archive)
            if is_honest:
                monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", hashlib.md5(archive).hexdigest())

        yield publish
        server.shutdown()
        thread.join()


def archive(*members: tuple[str, bytes | str]) -> bytes:
    """A tar.gz of files (bytes) and links (the name that they lead to)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            opened.addfile(member, io.BytesIO(content if isinstance(content, bytes) else b""))
    return buffer.getvalue()


def set_files(payload: bytes = b"payload") -> list[tuple[str, bytes]]:
    return [(f"{CIFAR10.folder}/{name}", payload) for name in CIFAR10.files]


def escapes(attack) -> dict[str, list[tuple[str, bytes | str]]]:
    return {
        "../ in a name": [("../marker", b"x"), *set_files()],
        "an absolute name": [(str(attack.marker), b"x"), *set_files()],
        "a link out, then a file through it": [("out", ".."), ("out/marker", b"x"), *set_files()],
        "the set's folder as a link out": [(CIFAR10.folder, ".."), (f"{CIFAR10.folder}/marker", b"x")],
    }


@pytest.mark.parametrize("name", escapes(type("Nowhere", (), {"marker": "/x"})))
def test_archives_that_leave_their_folder(attack, name, served):
    content = archive(*escapes(attack)[name])
    trusting = attack.folder / "trusting"
    trusting.mkdir()
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        opened.extractall(trusting, filter="fully_trusted")
    assert attack.marker.exists()  # the attack is one
    attack.marker.unlink()
    served(content, is_honest=True)
    data = attack.folder / "data"
    data.mkdir()
    arguments = ["--data.name", "cifar10", "--data.dir", data, "--data.download", "true", "--run_dir", "run"]
    status, errors = attack.run(train.main, *arguments)
    assert status == 2
    written = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    assert written <= {"cifar-10-python.tar.gz", *(name for name, _ in set_files())}
    assert not attack.marker.exists()
    attack.note("downloaded archive", name, f"refused: {errors.splitlines()[-1]}")


def test_an_archive_of_links_for_files(attack, served):
    (attack.folder / "secret").write_bytes(b"secret")
    members = [(name, str(attack.folder / "secret")) for name, _ in set_files()]
    served(archive(*members), is_honest=True)
    with pytest.raises(InputError, match="is not a file of a CIFAR set") as caught:
        load_images("cifar10", attack.folder, download=True)
    attack.note("downloaded archive", "links in the files' place", f"refused: {caught.value}")


def test_an_archive_of_another_md5_is_not_unpacked(attack, served, monkeypatch):
    served(archive(*set_files()), is_honest=False)
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("opened before its MD5 was checked"))
    with pytest.raises(InputError, match="could not be fetched") as caught:
        load_images("cifar10", attack.folder, download=True)
    assert not (attack.folder / CIFAR10.folder).exists()
    attack.note("downloaded archive", "another MD5", f"refused: {caught.value}")


def looped(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(name.rpartition("/")[2])
    return path


def test_a_run_dir_that_cannot_be_one(attack):
    file = attack.folder / "file"
    file.write_text("mine")
    for name, run_dir in {
        "is a file": file,
        "is below a file": file / "run",
        "is a loop of links": looped(attack.folder, "loop"),
    }.items():
        line = attack.refused("train --run_dir", name, train.main, *SHORT, "--run_dir", run_dir, says=run_dir.name)
        assert "Traceback" not in line
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["../other", "red line %s {x}"])
def test_run_names(attack, name):
    """The user's own word: the folder is exactly there."""
    top = attack.folder / "top"
    top.mkdir()
    run_dir = top / name
    status, errors = attack.run(train.main, *SHORT, f"--run_dir={run_dir}", "--eval.corruption_set", "c15")
    assert status == 0, errors
    assert {path.name for path in run_dir.iterdir()} >= {"config.yaml", "results.json", "metrics.jsonl"}
    attack.note("train --run_dir", repr(name), "trained there")


def test_a_run_name_that_moves_the_terminal(attack):
    """Its configuration could not be read again."""
    run_dir = "\x1b[31mred\nline"
    attack.refused("train --run_dir", repr(run_dir), train.main, *SHORT, "--run_dir", run_dir, says="run_dir: got ")
    assert not (attack.folder / run_dir).exists()


def test_a_run_name_that_is_no_text(attack):
    run_dir = os.fsdecode(b"\xff\xfe")
    attack.refused("train --run_dir", "bytes that are no UTF-8", train.main, "--run_dir", run_dir, says="run_dir")


@pytest.mark.parametrize("file", ["config.yaml", "checkpoints/last.pt"])
@pytest.mark.parametrize("what", ["a loop of links", "a folder", "/dev/zero"])
def test_run_folders_of_links(attack, file, what):
    run = write_run_folder(attack.folder / "run")
    path = run / file
    if what == "a loop of links":
        looped(run, file)
    elif what == "a folder":
        path.unlink(missing_ok=True)
        path.mkdir()
    else:
        path.unlink(missing_ok=True)
        path.symlink_to(what)
    attack.refused(f"evaluate {file}", what, evaluate.main, "--run", run, says=Path(file).name)
    attack.refused(f"theory {file}", what, theory.main, run, "--out", "out", says=Path(file).name)


@pytest.mark.parametrize("what", ["a loop of links", "a folder"])
def test_results_and_reports_of_links(attack, what):
    run, good = write_run(attack.folder / "run"), write_run(attack.folder / "good")
    (run / "results.json").unlink()
    looped(run, "results.json") if what == "a loop of links" else (run / "results.json").mkdir()
    attack.refused("report RUN/results.json", what, report.main, run, "--out", "out", says="results.json")
    out = looped(attack.folder, "out") if what == "a loop of links" else good / "results.json"
    attack.refused("report --out", what, report.main, good, "--out", out, says="out")
    digits = ("--dataset", "digits", "--num_images", "1")
    attack.refused("corrupt --out", what, corrupt_command.main, *digits, "--out", out, says="out")


def test_links_in_an_image_folder(attack):
    images = attack.folder / "images"
    (images / "class").mkdir(parents=True)
    (images / "class" / "passwd.png").symlink_to("/etc/passwd")
    (images / "class" / "endless.png").symlink_to("/dev/zero")
    arguments = ["--dataset", "folder", "--data_dir", images, "--image_size", "32", "--out", "set"]
    line = attack.refused(
        "image folder", "links to files, devices", corrupt_command.main, *arguments, says="cannot be read"
    )
    assert "root:" not in line
    for name in ("class/loop.png", "loop"):
        loop = looped(images, name)
        # It is left out and counted, as every link that leads nowhere; nothing is left but what cannot be read.
        refused = attack.refused(
            "image folder", f"a loop of links, {name}", corrupt_command.main, *arguments, says="No image is left"
        )
        assert "1 of 1 image files" in refused
        loop.unlink()


def test_arrays_that_are_links(attack):
    for name in ("labels.npy", "clean.npy"):
        (attack.folder / name).symlink_to("/dev/zero")
    (attack.folder / "fog.npy").write_bytes(npy(np.zeros((5, 6, 3), np.float32)))
    attack.refused("logits .npy", "/dev/zero", evaluate.main, "--logits", attack.folder, says="no such file")

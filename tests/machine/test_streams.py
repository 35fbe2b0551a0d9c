"""A command does its work, and exits with the work's status, whatever becomes of its standard output and error."""

import io
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from fastmagn.machine.console import console, progress_bar, warn
from tests.helpers.processes import LIMIT_S, ROOT, command_environment

WORK = """
import logging, os, sys, warnings
from pathlib import Path
from fastmagn.machine.command import run_command
from fastmagn.machine.console import console, progress_bar, warn

def main(arguments):
    kept = open(arguments[0], "wb")  # its number must not be that of a closed standard stream
    print("begun", flush=True)
    sys.stdin.read()  # until the reader of the output is gone
    with progress_bar() as bar:
        task = bar.add_task("work", total=500, status="")
        for step in range(500):
            console.print(f"step {step} of runs/x[/y]")
            bar.update(task, advance=1)
    warn("a warning")
    warnings.warn("another")
    logging.error("a log")
    print("x" * 100_000)
    print("y" * 100_000, file=sys.stderr)
    kept.write(b"done")
    return 7

run_command(main)
"""


@pytest.fixture
def work(tmp_path) -> tuple[list[str], Path]:
    """A command that prints in every way, writes `done` to a file, and exits with 7."""
    kept = tmp_path / "kept"
    return [sys.executable, "-c", WORK, str(kept)], kept


def start(command: list[str], **streams) -> subprocess.Popen:
    return subprocess.Popen(command, cwd=ROOT, env=command_environment(), stdin=subprocess.PIPE, **streams)


@pytest.mark.process
def test_a_pipe_whose_reader_is_gone(work):
    command, kept = work
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.stdout.close()
    errors = process.communicate(b"go on")[1].decode()
    assert (process.returncode, kept.read_bytes()) == (7, b"done")
    assert "a log" in errors
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


@pytest.mark.process
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_warning_is_written_before_the_work_goes_on(unbuffered):
    """A killed process would lose what its buffer holds. Containers often set PYTHONUNBUFFERED."""
    lines = ["import sys, warnings", "from fastmagn.machine.streams import *", "use_unfailing_streams()"]
    lines += ["warnings.warn('first')", "print('second')", "sys.stdin.read()"]
    environment = command_environment(PYTHONUNBUFFERED=unbuffered)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, env=environment, **streams)
    guard = threading.Timer(LIMIT_S, process.kill)  # a line that is held back would never come
    guard.start()
    assert process.stderr.readline().endswith(b"UserWarning: first\n")
    if unbuffered:
        assert process.stdout.readline() == b"second\n"
    process.communicate(b"")
    guard.cancel()


@pytest.mark.process
def test_a_full_disk_under_both_streams(work):
    command, kept = work
    with open("/dev/full", "wb") as full:
        process = start(command, stdout=full, stderr=full)
        process.communicate(b"go on")
    assert (process.returncode, kept.read_bytes()) == (7, b"done")


@pytest.mark.process
def test_closed_streams_get_no_file_of_the_work(work):
    command, kept = work
    shell = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]
    process = start(shell)
    process.communicate(b"go on")
    assert (process.returncode, kept.read_bytes()) == (7, b"done")


@pytest.mark.process
def test_a_closed_error_stream_does_not_put_errors_among_the_output():
    command = [sys.executable, "-m", "fastmagn.train", "--no_such_field", "1"]
    process = start(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], stdout=subprocess.PIPE)
    assert (process.communicate()[0], process.returncode) == (b"", 2)


@pytest.mark.process
def test_a_terminal_that_is_gone_under_nohup(work):
    command, kept = work
    terminal, end = pty.openpty()
    process = start(
        command,
        stdout=end,
        stderr=end,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(end)
    assert os.read(terminal, 5) == b"begun"
    os.close(terminal)
    process.communicate(b"go on")
    assert (process.returncode, kept.read_bytes()) == (7, b"done")


@pytest.mark.process
@pytest.mark.parametrize("arguments", [["fastmagn", "--version"], ["fastmagn.train", "--print_config"]])
def test_output_that_is_all_that_was_asked_for_is_not_lost_silently(arguments):
    command = [sys.executable, "-m", *arguments]
    with open("/dev/full", "wb") as full:
        process = start(command, stdout=full, stderr=subprocess.PIPE)
        errors = process.communicate()[1].decode()
    assert (process.returncode, errors) == (2, "error: standard output: No space left on device\n")
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # its reader has seen enough
    assert (process.communicate()[1], process.returncode) == (b"", 0)


class Refusing(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_in_a_library_the_console_raises_nothing():
    closed = io.StringIO()
    closed.close()
    for stream in (Refusing(), closed, None):
        with redirect_stdout(stream):
            console.print("a line")
            warn("a warning")
            with progress_bar() as bar:
                bar.add_task("work", total=1, status="")
    assert not console.quiet


def test_what_the_stream_of_a_library_cannot_encode_is_escaped():
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    with redirect_stdout(stream):
        console.print("runs/\udcff and \u00e9")  # a name of other bytes than UTF-8, and a letter
    stream.flush()
    assert written.getvalue() == b"runs/\\udcff and \\xe9\n"


def test_nothing_printed_is_markup(capsys):
    name = "runs/x[/y] [bold]z[/bold] :smile:"
    console.print(name)
    warn(name)
    assert capsys.readouterr().out == f"{name}\nwarning: {name}\n"

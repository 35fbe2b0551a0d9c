"""Warnings of a command: one line each, for people."""

import logging
import warnings
from contextlib import suppress

import pytest

from fastmagn.errors import warn_caller
from fastmagn.machine.command import run_command


def run(main) -> None:
    with pytest.raises(SystemExit) as left:
        run_command(lambda arguments: main() or 0)
    assert left.value.code == 0


def test_a_warning_is_one_line_without_its_class_and_its_source(capsys):
    run(lambda: warn_caller("a.jpg\n  cannot be read\x1b[31m"))
    assert capsys.readouterr().err == "warning: a.jpg cannot be read\\x1b[31m\n"


def test_what_pillow_and_programmers_say_is_not_shown(capsys):
    def main() -> None:
        warnings.warn_explicit("Palette images", UserWarning, "PngImagePlugin.py", 7, module="PIL.PngImagePlugin")
        warnings.warn_explicit("will change", FutureWarning, "script.py", 7, module="torch.jit")
        logging.getLogger("PIL.TiffImagePlugin").warning("more samples than expected")

    run(main)
    assert capsys.readouterr().err == ""


def test_a_library_whose_log_is_on_a_full_disk(capsys):
    def main() -> None:
        with open("/dev/full", "w") as full:
            handler = logging.StreamHandler(full)
            logger = logging.getLogger("a library")
            logger.addHandler(handler)
            logger.warning("x")
            logger.removeHandler(handler)
            with suppress(OSError):
                full.close()

    run(main)
    assert capsys.readouterr().err == ""


def test_afterwards_warnings_and_logs_are_as_they_were():
    def settings() -> list[object]:
        log = logging.getLogger("PIL")
        return [warnings.showwarning, list(warnings.filters), log.propagate, logging.raiseExceptions]

    before = settings()
    run(lambda: None)
    assert settings() == before

"""Runs the main function of a command: errors become one line, signals become an exit status."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from fastmagn.errors import EXIT_INPUT_ERROR, InputError, Interrupted, Stalled, printable
from fastmagn.machine.signals import interrupted_at_once
from fastmagn.machine.streams import lost_output, use_unfailing_streams
from fastmagn.machine.waiting import bound_spinning


def run_command(main: Callable[[list[str]], int]) -> None:
    """Exit with the status that `main` returns. An InputError or a failed file call becomes one line and status 2.

    SIGINT (Ctrl-C) ends the command with status 130, SIGTERM with 143, SIGHUP (a closed terminal) with 129. Output that
    cannot be printed does not change the status, unless it is all that was asked for (`--help`, `--print_config`).
    """
    bound_spinning()
    use_unfailing_streams()
    try:
        with interrupted_at_once(), warnings_in_one_line():
            status = main(sys.argv[1:])
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        status = EXIT_INPUT_ERROR
        if isinstance(error, Stalled):
            _leave(status)
    except OSError as error:
        if error.filename is None:
            raise
        name = str(error.filename2 or error.filename)  # of a rename: the final name, not the temporary one
        print(f"error: {printable(name)}: {error.strerror or error}", file=sys.stderr)
        status = EXIT_INPUT_ERROR
    except Interrupted as interrupted:
        print(f"interrupted by {interrupted}", file=sys.stderr)
        status = interrupted.exit_status
    except SystemExit as left:  # a parser has printed what was asked for
        exit_printed(left.code)
    raise SystemExit(status)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print each warning as a line on stderr, `warning: …`, without the class and the line of code it came from.

    Pillow's warnings and log are silenced: they are about palettes and broken EXIF fields of images that can be read,
    and the files that cannot be read are counted by our own warnings. So are FutureWarnings, which tell programmers
    what a library's next version will change. A library's log that cannot be written, as on a full disk, is dropped.
    """

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)

    log = logging.getLogger("PIL")
    handlers, prints_failures = log.handlers, logging.raiseExceptions
    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("ignore", FutureWarning)
        log.handlers = [logging.NullHandler()]
        log.propagate = logging.raiseExceptions = False
        try:
            yield
        finally:
            log.handlers, log.propagate, logging.raiseExceptions = handlers, True, prints_failures


def _leave(status: int) -> NoReturn:
    """Exit without waiting for threads: one of them waits for a disk that does not answer."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def exit_printed(status: object = 0) -> NoReturn:
    """Exit after output that is all that was asked for: with `status`, or with 2 and a line if it could not be written.

    A reader that closes its pipe has read enough; that is not a failure.
    """
    failure = lost_output()
    if failure is None or status:
        raise SystemExit(status)
    print(f"error: standard output: {failure.strerror}", file=sys.stderr)
    raise SystemExit(EXIT_INPUT_ERROR)

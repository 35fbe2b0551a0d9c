"""Runs the main function of a command: errors become one line, signals become an exit status."""

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fastmagn.errors import EXIT_INPUT_ERROR, InputError, Interrupted, printable
from fastmagn.machine.signals import interrupted_at_once


def run_command(main: Callable[[list[str]], int]) -> None:
    """Exit with the status that `main` returns. An InputError or a failed file call becomes one line and status 2.

    SIGINT (Ctrl-C) ends the command with status 130, SIGTERM with 143.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # not if another program has replaced it
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a folder need not be text
    try:
        with interrupted_at_once(), warnings_in_one_line():
            status = main(sys.argv[1:])
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        status = EXIT_INPUT_ERROR
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {printable(str(error.filename))}: {error.strerror}", file=sys.stderr)
        status = EXIT_INPUT_ERROR
    except Interrupted as interrupted:
        print(f"interrupted by {interrupted}", file=sys.stderr)
        status = interrupted.exit_status
    raise SystemExit(status)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print each warning as a line on stderr, `warning: …`, without the class and the line of code it came from.

    Pillow's warnings and log are silenced: they are about palettes and broken EXIF fields of images that can be read,
    and the files that cannot be read are counted by our own warnings.
    """

    def show(message: Warning | str, *_: object) -> None:
        with suppress(OSError, ValueError):  # stderr may be closed or full
            print(f"warning: {printable(' '.join(str(message).split()))}", file=sys.stderr)

    log = logging.getLogger("PIL")
    handlers = log.handlers
    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.filterwarnings("ignore", module=r"PIL\.")
        log.handlers = [logging.NullHandler()]
        log.propagate = False
        try:
            yield
        finally:
            log.handlers, log.propagate = handlers, True

"""Runs the main function of a command: errors become one line, signals become an exit status."""

import io
import sys
from collections.abc import Callable

from fastmagn.errors import EXIT_INPUT_ERROR, InputError, Interrupted, printable
from fastmagn.machine.signals import interrupted_at_once


def run_command(main: Callable[[list[str]], int]) -> None:
    """Exit with the status that `main` returns. An InputError or a failed file call becomes one line and status 2.

    SIGINT (Ctrl-C) ends the command with status 130, SIGTERM with 143.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # not if another program has replaced it
        sys.stdout.reconfigure(errors="backslashreplace")  # the name of a folder need not be text
    try:
        with interrupted_at_once():
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

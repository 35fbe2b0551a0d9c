"""Runs the main function of a command: errors become one line, signals become an exit status."""

import sys
from collections.abc import Callable
from typing import NoReturn

from fastmagn.errors import EXIT_INPUT_ERROR, InputError, Interrupted, printable
from fastmagn.machine.signals import interrupted_at_once
from fastmagn.machine.streams import lost_output, use_unfailing_streams


def run_command(main: Callable[[list[str]], int]) -> None:
    """Exit with the status that `main` returns. An InputError or a failed file call becomes one line and status 2.

    SIGINT (Ctrl-C) ends the command with status 130, SIGTERM with 143, SIGHUP (a closed terminal) with 129. Output that
    cannot be printed does not change the status, unless it is all that was asked for (`--help`, `--print_config`).
    """
    use_unfailing_streams()
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
    except SystemExit as left:  # a parser has printed what was asked for
        exit_printed(left.code)
    raise SystemExit(status)


def exit_printed(status: object = 0) -> NoReturn:
    """Exit after output that is all that was asked for: with `status`, or with 2 and a line if it could not be written.

    A reader that closes its pipe has read enough; that is not a failure.
    """
    failure = lost_output()
    if failure is None or status:
        raise SystemExit(status)
    print(f"error: standard output: {failure.strerror}", file=sys.stderr)
    raise SystemExit(EXIT_INPUT_ERROR)

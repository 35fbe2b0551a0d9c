"""Errors meant for people: one line that says what came, what is allowed and what to do."""

import signal

EXIT_INPUT_ERROR = 2
EXIT_CODES = "Exit codes: 0 done; 2 unusable input, as one line says; 130 interrupted (Ctrl-C); 143 stopped (SIGTERM)."


class InputError(ValueError):
    """Something that the user gave (a field, a file, a folder) cannot be used. The message says everything.

    Commands print it without a traceback and exit with status 2. Broken invariants of our own code are asserts.
    """


def check(holds: bool, field: str, got: object, expected: str) -> None:
    """Raise InputError `field: got …; expected ….` unless `holds`."""
    if not holds:
        raise InputError(f"{field}: got {got!r}; expected {expected}.")


class Interrupted(KeyboardInterrupt):
    """SIGINT (Ctrl-C) or SIGTERM arrived, and the work was left in order.

    Args:
        signal_number: Which of the two.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number  # what a shell reports for a process that the signal ended


def printable(text: str) -> str:
    r"""The text with every control or invisible character written as an escape such as \x1b."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)

"""Errors meant for people: one line that says what was given, what is allowed and what to do."""

import difflib
import operator
import signal
import sys
import unicodedata
import warnings
from collections.abc import Container, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np

_UNSHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode's categories: controls, halves of pairs, ends of lines
_TURNING = frozenset({"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"})
MAX_TEXT_CHARS = 4096
EXIT_INPUT_ERROR = 2
EXIT_CODES = (
    "Exit codes: 0 done; 2 unusable input, as one line says; 130 interrupted (Ctrl-C); 143 stopped (SIGTERM); "
    "129 the terminal was closed (SIGHUP)."
)


class InputError(ValueError):
    """Something that the user gave (a field, a file, a folder) cannot be used. The message says everything.

    Commands print it without a traceback and exit with status 2. Broken invariants of our own code are asserts.
    """


class UnknownName(InputError):
    """A name that no table has. Code of the user's own could add it."""


class MissingSplit(InputError):
    """All images of a split are missing. An evaluation needs no training images, if the test images are there."""


class Stalled(InputError):
    """A thread waits for a disk that does not answer, so that the process cannot end by itself."""


def check(holds: bool, field: str, got: object, expected: str) -> None:
    """Raise InputError `field: got …; expected ….` unless `holds`."""
    if not holds:
        raise InputError(f"{field}: got {got!r}; expected {expected}.")


def without(package: str, error: ImportError, missing: str) -> InputError:
    """The InputError of a package that cannot be imported: it is not installed, or it is and cannot be loaded.

    Args:
        package: Its dotted name.
        error: What its import raised.
        missing: The message if it is not installed, `FIELD: …`.
    """
    if isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}."):
        return InputError(missing)
    field = missing.partition(": ")[0]
    return InputError(f"{field}: {package} is installed, but cannot be used ({one_line(error)}); install it anew.")


def form(array: Any) -> str:
    """The dtype and the shape of a tensor or an array, as messages show them: `uint8 [8, 3, 32, 32]`."""
    return f"{str(array.dtype).removeprefix('torch.')} {list(array.shape)}"


def is_integer(value: object) -> bool:
    """Whether it is an integer of Python, NumPy or PyTorch; True and False are not."""
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(value, bool)


def as_integer(field: str, value: object, allowed: Container[int], expected: str) -> int:
    """The value as Python's integer; InputError if it is not one, or not in `allowed`."""
    check(is_integer(value), field, value, expected)
    number = operator.index(value)  # type: ignore[arg-type]
    check(number in allowed, field, number, expected)
    return number


def as_array(field: str, values: Any) -> "np.ndarray":
    """The values as an array; InputError if they are none, such as rows of different lengths."""
    import numpy as np  # here, so that a command's first message need not wait for it

    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # TypeError: bfloat16; RuntimeError: with gradients
        raise InputError(f"{field}: got a {type(values).__name__} that is not an array ({one_line(error)}).") from error


def warn_caller(message: str) -> None:
    """`warnings.warn`, for the line of the program that called fastmagn; commands print the message alone."""
    level, frame = 1, cast("FrameType | None", sys._getframe())
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fastmagn":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


class Interrupted(KeyboardInterrupt):
    """SIGINT (Ctrl-C), SIGTERM or SIGHUP arrived, and the work was stopped cleanly.

    Args:
        signal_number: Which of them.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number  # what a shell reports for a process that the signal ended


def printable(text: str) -> str:
    r"""The text with every control or invisible character written as an escape such as \x1b."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def is_shown(text: str) -> bool:
    """Whether the text can be shown as it stands: no control character, no end of a line, nothing that turns it round.

    Names of files have spaces and joiners of all kinds, and characters that are newer than Python's tables.
    """
    return text.isprintable() or not any(
        unicodedata.category(char) in _UNSHOWN or unicodedata.bidirectional(char) in _TURNING for char in text
    )


def is_kept(text: str) -> bool:
    """Whether the JSON files of a run may hold the text: it can be shown, and has at most 4,096 characters."""
    return len(text) <= MAX_TEXT_CHARS and is_shown(text)


def one_line(error: BaseException, max_chars: int | None = 200) -> str:
    """An exception's message on one line, cut at `max_chars` (None: not cut); its type's name if it has no message."""
    return " ".join(str(error).split())[:max_chars] or type(error).__name__


def counted(number: int, noun: str, spec: str = "") -> str:
    """A number and its noun, singular or plural: `1 epoch`, `2 epochs`, `1 class`, `3 classes`, `2 severities`.

    Args:
        number: How many.
        noun: The noun in the singular, with what precedes it, such as `test image`.
        spec: How the number is formatted; `,` separates thousands.
    """
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith(("s", "x", "tch")) else "s")
    return f"{number:{spec}} {noun if number == 1 else plural}"


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first `shown` names, and how many more there are: `a, b, c and 5 more`."""
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def nearest(name: str, known: Iterable[str], how_many: int = 1, cutoff: float = 0.6, prefix: str = "") -> str:
    """The end of a message about an unknown name: ` Did you mean 'x'?`; empty if no known name is near.

    Capitals count as small letters. If no whole name is near, the parts after a colon are compared: `mnist` is near
    `torchvision:MNIST`.

    Args:
        name: The unknown name.
        known: The known names.
        how_many: At most this many of them are suggested, the nearest first.
        cutoff: How near a name must be, 0..1, as in difflib.get_close_matches.
        prefix: Put before the suggested names; it does not count as a part of them.
    """
    known = list(known)
    for whole in (True, False):
        forms: dict[str, list[str]] = {}
        for one in known:
            forms.setdefault((one if whole else one.rpartition(":")[2]).lower(), []).append(one)
        near = difflib.get_close_matches(name.lower(), forms, how_many, cutoff)
        matches = [prefix + one for form in near for one in forms[form]][:how_many]
        if matches:
            return f" Did you mean {', '.join(map(repr, matches))}?"
    return ""

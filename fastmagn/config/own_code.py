"""Code of the user's own: a Python file that `--import FILE` names. It adds names to the tables, see `fastmagn.extend`.

Only the words of a command line run it. A configuration or a run folder records such a file in its field `imports`, and
may be anyone's: what it names is not run. If a name is then unknown, the message says which option is missing.
"""

import hashlib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from fastmagn.config.paths import user_path
from fastmagn.errors import InputError, UnknownName, one_line

OPTION = "--import"
HELP = (
    "Python file with your own data sets, networks, methods or corruptions, which this command runs first; "
    "see docs/extending.md. A run records its name and a copy; only this option runs it."
)
_sources: dict[Path, bytes] = {}  # what was run


def run_imported(arguments: Sequence[str]) -> None:
    """Run the file that `--import` names among the words of a command line, once.

    The words after `--config` are left alone: they may hold the text of a file.

    Raises:
        InputError: There are two such files, or it cannot be read, or it raises an exception.
    """
    words = [
        word.removeprefix(f"{OPTION}=")
        for previous, word in zip(["", *arguments], arguments, strict=False)
        if previous != "--config" and (previous == OPTION or word.startswith(f"{OPTION}="))
    ]
    files = list(dict.fromkeys(user_path(word, "import") for word in words))
    if len(files) > 1:
        raise InputError(f"import: got {files[0]} and {files[1]}; expected one file, which may import others.")
    for file in files:
        _run(file)


def _run(file: Path) -> None:
    try:
        source = file.read_bytes()
    except OSError as error:
        raise InputError(f"import: {file}: {error.strerror}; expected a Python file.") from None
    place = file.resolve()
    if _sources.get(place) == source:
        return
    name = f"_fastmagn_import_{re.sub(r'[^0-9a-zA-Z]', '_', file.stem)}"
    module = ModuleType(name)
    module.__file__ = str(place)
    sys.modules[name] = module
    if str(place.parent) not in sys.path:
        sys.path.append(str(place.parent))  # last, so that it hides no other module
    try:
        exec(compile(source, str(place), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        what = one_line(error) if isinstance(error, InputError) else f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"import: {file}{_line(error, place)}: {what}") from error
    _sources[place] = source


def _line(error: BaseException, place: Path) -> str:
    """Where in the file it went wrong."""
    if isinstance(error, SyntaxError):
        number = error.lineno if error.filename == str(place) else None
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(place)]
        number = frames[-1].lineno if frames else None
    return f", line {number}" if number else ""


def source_of(file: Path | None) -> bytes | None:
    """What was run of a file; None if it was not run."""
    return None if file is None else _sources.get(file.resolve())


def trusted(file: Path | None) -> Path | None:
    """The file, if it was run here: another process of this command may run it too; else None."""
    return None if source_of(file) is None else file


def sources() -> dict[Path, bytes]:
    """Every file that was run, and its content."""
    return dict(_sources)


def digest() -> str:
    """Eight hexadecimal digits that tell one content of the files that were run from another."""
    return hashlib.sha256(b"".join(_sources.values())).hexdigest()[:8]


@contextmanager
def explained(imports: Path | None) -> Iterator[None]:
    """An unknown name's message then says so if the configuration records code that was not run."""
    try:
        yield
    except UnknownName as error:
        if imports is None or source_of(imports) is not None:
            raise
        raise InputError(
            f"{error} The configuration names the code of {imports}. If you trust it, add {OPTION} {imports}; code runs"
            " only if the command line names it."
        ) from error

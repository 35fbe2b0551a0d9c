"""Printing never stops the work: a closed pipe, a terminal that is gone or a full disk loses lines and raises nothing.

A command replaces its standard streams (`use_unfailing_streams`). Where fastmagn is a library, sys.stdout is the
caller's and stays; only what fastmagn itself prints is protected (`CurrentOutput`).
"""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class _UnfailingFile(io.RawIOBase):
    """A file descriptor whose failing writes count as done. It is never closed."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            self.failure = error
            return len(data)


class CurrentOutput(io.TextIOBase):
    """Whatever sys.stdout is when it is written to; nothing that it refuses is an error."""

    @property
    def _stream(self) -> TextIO | None:
        # What a live display of rich stands before, if there is one.
        stream: TextIO | None = getattr(sys.stdout, "rich_proxied_file", sys.stdout)
        return None if stream is None or getattr(stream, "closed", False) else stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property here
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if (stream := self._stream) is not None:
            with suppress(OSError):
                try:
                    stream.write(text)
                except UnicodeEncodeError:  # its characters are few, or a name is not text
                    stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        if (stream := self._stream) is not None:
            with suppress(OSError):
                stream.flush()

    def isatty(self) -> bool:
        return (stream := self._stream) is not None and stream.isatty()

    def fileno(self) -> int:
        if (stream := self._stream) is None:
            raise io.UnsupportedOperation("fileno")
        return stream.fileno()


def use_unfailing_streams() -> None:
    """Replace sys.stdout and sys.stderr of this process, unless another program has replaced them already.

    What a write refuses is lost; later writes are tried again, so a log continues once its disk has room. A stream that
    was closed before the process began becomes the null device.
    """
    _open_missing_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        raw = getattr(getattr(stream, "buffer", None), "raw", getattr(stream, "buffer", None))
        if stream is None:  # print(file=sys.stderr) would print to standard output
            descriptor = os.open(os.devnull, os.O_WRONLY)
            options: dict[str, Any] = {"encoding": "utf-8"}
        elif type(stream) is io.TextIOWrapper and isinstance(raw, io.FileIO):
            with suppress(OSError):
                stream.flush()
            descriptor = raw.fileno()
            # PYTHONUNBUFFERED writes through, which would end in the buffer below; each line is then written at once.
            options = {"encoding": stream.encoding, "line_buffering": stream.line_buffering or stream.write_through}
        else:
            continue
        file = io.BufferedWriter(_UnfailingFile(descriptor, f"<{name}>"))
        setattr(sys, name, io.TextIOWrapper(file, errors="backslashreplace", **options))  # a path need not be text


def lost_output() -> OSError | None:
    """Why standard output has lost something; None if it has not, or if its reader has closed the pipe."""
    with suppress(OSError, AttributeError):  # AttributeError: there is no standard output
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _UnfailingFile) else None
    return None if failure is not None and failure.errno == errno.EPIPE else failure


def _open_missing_descriptors() -> None:
    """Open the null device in place of closed standard streams: a file that got number 2 would get the errors."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number

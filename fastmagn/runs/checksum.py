"""A checksum at the end of a checkpoint: in the comment that a zip archive may have, so torch.load reads it as before.

Layout: what torch.save wrote, whose last two bytes now give the length of the comment; then the comment
`fastmagn step 000000001234 sha256 ` and the SHA-256 of every byte before it, 64 lower-case hexadecimal digits. The
bytes and their checksum arrive in one rename, and every flipped, lost or added byte shows.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import IO

_DIGITS = 64  # of a SHA-256
_HEAD = re.compile(rb"fastmagn step (\d{12}) sha256 ")
_HEAD_BYTES = len(b"fastmagn step 000000000000 sha256 ")
_CHUNK_BYTES = 1 << 20


def add_checksum(file: IO[bytes], step: int) -> None:
    """Add step and checksum to a zip archive that has no comment; the file is open for reading and writing."""
    head = b"fastmagn step %012d sha256 " % step
    file.seek(-2, os.SEEK_END)
    assert file.read(2) == b"\0\0", "the archive has a comment"
    file.seek(-2, os.SEEK_END)
    file.write((len(head) + _DIGITS).to_bytes(2, "little") + head)
    size = file.tell()
    file.seek(0)
    digest = _sha256(file, size)
    file.seek(size)
    file.write(digest)


def find_damage(file: IO[bytes]) -> str | None:
    """The damage, phrased to follow the file's name; None if the file is intact.

    Nothing in the file is interpreted. Its position is 0 afterwards.
    """
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return "is empty"
    if _step(file, size) is None:
        return "does not end with a checksum: it is cut short, or another version of fastmagn wrote it"
    file.seek(0)
    digest, written = _sha256(file, size - _DIGITS), file.read(_DIGITS)
    file.seek(0)
    return None if digest == written else "does not match its checksum: it is damaged"


def stored_step(path: Path) -> int | None:
    """The step in the comment of a checkpoint; None if there is none. The checksum is not verified."""
    with path.open("rb") as file:
        return _step(file, file.seek(0, os.SEEK_END))


def _step(file: IO[bytes], size: int) -> int | None:
    if size < _HEAD_BYTES + _DIGITS:
        return None
    file.seek(size - _DIGITS - _HEAD_BYTES)
    head = _HEAD.fullmatch(file.read(_HEAD_BYTES))
    return None if head is None else int(head[1])


def _sha256(file: IO[bytes], num_bytes: int) -> bytes:
    """The SHA-256 of the next `num_bytes` bytes, as digits."""
    digest = hashlib.sha256()
    while num_bytes > 0 and (chunk := file.read(min(num_bytes, _CHUNK_BYTES))):
        digest.update(chunk)
        num_bytes -= len(chunk)
    return digest.hexdigest().encode()

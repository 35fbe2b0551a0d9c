"""Zip archives from anyone."""

import os
import zipfile
from typing import IO

_ZIP = b"PK\x03\x04"


def is_archive(file: IO[bytes]) -> bool:
    """Whether PyTorch takes the file for a zip archive: by its first bytes. The file's position is 0 afterwards."""
    file.seek(0)
    first = file.read(len(_ZIP))
    file.seek(0)
    return first == _ZIP


def check_members(file: IO[bytes]) -> None:
    """Refuse an archive that unpacks to more bytes than it has. The file's position is 0 afterwards.

    Raises:
        ValueError: It unpacks to more.
        zipfile.BadZipFile: It is not an archive.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        if sum(member.file_size for member in archive.infolist()) > size:
            raise ValueError("it unpacks to more than its size")
    file.seek(0)

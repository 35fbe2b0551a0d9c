"""Reads arrays from .npz files of anyone: mapped where they are stored uncompressed, and nothing in them is ever run.

An .npz is a zip of .npy files. NumPy's own reader reads each array into memory, even if it is stored as it is, and
allocates what a header claims. Here the header is compared with the sizes in the zip first, and a stored array is
mapped at its place in the file. The checksum of a mapped array is not verified, as that would read all of it.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from fastmagn.errors import InputError, one_line

_LOCAL_HEADER = struct.Struct(
    "<4s22xHH"
)  # a zip member's signature, and the lengths of its name and of its extra field
_MAX_HEADER_BYTES = 1 << 14
_MAX_DEFLATE_RATIO = 1032
_READ_BYTES = 1 << 22
_KINDS = "biufU"
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class _Header(NamedTuple):
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    num_bytes: int  # of the header itself


def read_npz(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that a file holds: read-only maps if they are stored, else in memory.

    Raises:
        InputError: It is not a whole .npz; an array is not of numbers or texts, does not have the size that its header
            says, or is compressed and too large for memory.
    """
    with _explained(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    arrays = {}
    for name in names:
        if name in members:
            with _explained(f"{path}: {name}"), zipfile.ZipFile(path) as archive:
                arrays[name] = _read_member(path, archive, members[name])
    return arrays


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in a file. Raises InputError if it is not an .npz."""
    with _explained(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def _explained(where: Path | str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a parser may raise anything of a file that was made to break it
        raise InputError(
            f"{where}: cannot be read as an .npz file ({one_line(error)}). Save it again with numpy.savez."
        ) from error


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        header = _read_header(file.read(_MAX_HEADER_BYTES))
    num_bytes = math.prod(header.shape) * header.dtype.itemsize
    if header.num_bytes + num_bytes != info.file_size:
        raise ValueError(
            f"its header claims {num_bytes} bytes of values, and the zip holds {info.file_size - header.num_bytes}"
        )
    if num_bytes == 0:
        return np.empty(header.shape, header.dtype)
    if info.compress_type == zipfile.ZIP_STORED:
        return _map(path, info, header)
    if (
        info.file_size > _MAX_DEFLATE_RATIO * info.compress_size + _READ_BYTES
        and info.compress_type == zipfile.ZIP_DEFLATED
    ):
        raise ValueError(f"{info.compress_size} compressed bytes cannot hold the {info.file_size} that it claims")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > memory // 2:
        raise InputError(
            f"{path}: {info.filename} takes {num_bytes / 1e9:,.0f} GB of memory, as it is compressed; this machine has"
            f" {memory / 1e9:,.0f} GB. numpy.savez, which does not compress, makes a file that need not be in memory."
        )
    return _decompress(archive, info, header)


def _read_header(start: bytes) -> _Header:
    file = io.BytesIO(start)
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise ValueError(f"format version {version}")
    shape, is_fortran, dtype = _READ_HEADER[version](file)
    if dtype.kind not in _KINDS:
        what = (
            "objects, which only running code from the file could make; nothing was run" if dtype.hasobject else dtype
        )
        raise ValueError(f"its values are {str(what)[:80]}")
    if dtype.itemsize == 0 or any(side < 0 for side in shape) or len(shape) > 8:
        raise ValueError("its shape is not one of an array")
    return _Header(shape, is_fortran, dtype, file.tell())


def _map(path: Path, info: zipfile.ZipInfo, header: _Header) -> np.ndarray:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        first = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + header.num_bytes
        last = first + info.file_size - header.num_bytes
        size = file.seek(0, os.SEEK_END)
    if signature != b"PK\x03\x04" or last > size or info.compress_size != info.file_size:
        raise ValueError("it is truncated, or its place in the zip is wrong")
    return np.memmap(path, header.dtype, "r", first, header.shape, "F" if header.is_fortran else "C")


def _decompress(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: _Header) -> np.ndarray:
    flat = np.empty(math.prod(header.shape), header.dtype)
    left = memoryview(flat.view(np.uint8))
    with cast(zipfile.ZipExtFile, archive.open(info)) as file:
        file.read(header.num_bytes)
        while len(left):
            count = file.readinto(left[:_READ_BYTES])
            if not count:
                raise zlib.error("it ends before its values do")
            left = left[count:]
        file.read(1)  # the end, where the checksum is verified
    return flat.reshape(header.shape, order="F" if header.is_fortran else "C")

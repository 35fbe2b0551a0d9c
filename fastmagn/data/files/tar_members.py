"""The samples of a tar shard in WebDataset's layout: where each image's bytes are, and its label.

Files whose names are the same up to the first dot of the last part are a sample: its key, then .jpg, .cls, .json. The
archive's headers are read; nothing is extracted, and no name in it is ever used as a path.
"""

import io
import json
import os
import tarfile
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from fastmagn.data.files.shard_index import Members
from fastmagn.errors import InputError, one_line, printable, warn_caller

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")
_MAX_HEADER_BYTES = 1 << 20  # of a long name or a pax header, and of a label's file
_LAYOUT = "KEY.jpg (or .jpeg, .png, .webp) with KEY.cls or KEY.json for each sample"


class _Headers(io.FileIO):
    """Refuses to read a header of gigabytes, which a hostile archive may claim."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
            raise ValueError(f"a header claims {size:,} bytes")
        return super().read(size)


class _Sample:
    def __init__(self) -> None:
        self.images: list[tarfile.TarInfo] = []
        self.labels: dict[str, tarfile.TarInfo] = {}


def read_tar(path: str, label_column: str) -> Members:
    """The samples of a shard that have an image.

    Args:
        path: The shard.
        label_column: The field of KEY.json that holds the label, where there is no KEY.cls.

    Raises:
        InputError: It is not a whole, uncompressed tar; a sample has two images, or no label; or no
            sample has an image.
    """
    unused: Counter[str] = Counter()
    samples: dict[str, _Sample] = {}
    num_bytes = os.stat(path).st_size
    with _Headers(path) as file:
        for member in _members(path, file, num_bytes):
            reason = _why_unused(member)
            if reason:
                unused[reason] += 1
                continue
            folder, name = os.path.split(member.name.removeprefix("./"))
            key, _, kind = name.partition(".")
            sample = samples.setdefault(os.path.join(folder, key), _Sample())
            _add(sample, member, kind.lower(), f"{path}: {os.path.join(folder, key)}", unused)
        found = Members([], [], [])
        for key, sample in samples.items():
            if sample.images:
                image = sample.images[0]
                found.names.append(image.name.removeprefix("./"))
                found.labels.append(_label(file, sample, label_column, f"{path}: {key}"))
                found.spans.append((image.offset_data, image.size))
            elif sample.labels:
                unused["sample without an image"] += 1
    if not found.names:
        raise InputError(f"{path}: holds no image{_in_words(unused)}; expected {_LAYOUT}.")
    if unused:
        warn_caller(f"{path}: members that are not used{_in_words(unused)}.")
    return found


def _members(path: str, file: _Headers, num_bytes: int) -> list[tarfile.TarInfo]:
    """All members; each lies within the file, and the archive's end follows the last one."""
    members: list[tarfile.TarInfo] = []
    last = "its start"
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                if members and member.offset <= members[-1].offset:
                    raise ValueError("headers in a loop")
                last = member.name
                if member.size < 0 or (member.isreg() and member.offset_data + member.size > num_bytes):
                    raise ValueError(f"it claims {member.size:,} bytes at {member.offset_data:,} of {num_bytes:,}")
                members.append(member)
            file.seek(archive.offset)
            end = file.read(tarfile.BLOCKSIZE)
    except Exception as error:  # of many types, as tarfile does not expect every damage
        raise InputError(
            f"{path}: is damaged after {printable(last)} ({one_line(error, 100)}); expected a whole tar that is not"
            f" compressed, {_LAYOUT}. Fetch or make it anew."
        ) from error
    if end != bytes(tarfile.BLOCKSIZE):
        raise InputError(
            f"{path}: is truncated or damaged after {printable(last)}: the end of the archive does not follow. Fetch or"
            " make it anew."
        )
    return members


def _why_unused(member: tarfile.TarInfo) -> str | None:
    """Why a member is not used; None if it is a file of a sample, "" if it need not be mentioned."""
    if member.isdir():
        return ""
    if member.issym() or member.islnk():
        return "link"
    if member.issparse():
        return "sparse file"
    if not member.isreg():
        return "device or another special file"
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        return "path outside the archive"
    return "" if not parts or parts[-1].startswith(".") else None


def _add(sample: _Sample, member: tarfile.TarInfo, kind: str, where: str, unused: Counter[str]) -> None:
    if kind in IMAGE_KINDS:
        sample.images.append(member)
        if len(sample.images) > 1:
            raise InputError(f"{printable(where)}: this key has two images; expected one image per key.")
    elif kind in ("cls", "json"):
        if kind in sample.labels:
            raise InputError(f"{printable(where)}: this key has two .{kind} files; expected one per key.")
        sample.labels[kind] = member
    else:
        unused[f"of another kind (.{printable(kind[:20])})" if kind else "without a suffix"] += 1


def _label(file: _Headers, sample: _Sample, column: str, where: str) -> str:
    """The label as text: what KEY.cls holds, or the field `column` of KEY.json."""
    where = printable(where)
    member = sample.labels.get("cls") or sample.labels.get("json")
    if member is None:
        raise InputError(f"{where}: has no label; expected KEY.cls or KEY.json beside each image.")
    kind = "cls" if "cls" in sample.labels else "json"
    if member.size > _MAX_HEADER_BYTES:
        raise InputError(f"{where}: its .{kind} has {member.size:,} bytes; expected at most {_MAX_HEADER_BYTES:,}.")
    text = os.pread(file.fileno(), member.size, member.offset_data)
    try:
        value: Any = text.decode("utf-8-sig") if kind == "cls" else json.loads(text)
        if kind == "json":
            value = value[column]
        if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
            raise ValueError("neither a number nor a name")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        field = f"a field {column!r} (data.label_column) in " if kind == "json" else ""
        raise InputError(
            f"{where}: its .{kind} holds no label ({one_line(error, 80)}); expected {field}KEY.{kind}, a number or a"
            " class name."
        ) from None
    return str(value).strip()


def _in_words(unused: Counter[str]) -> str:
    words = ", ".join(f"{count} {reason}" for reason, count in sorted(unused.items()) if reason)
    return f": {words}" if words else ""

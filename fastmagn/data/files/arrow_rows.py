"""Encoded images in the rows of Arrow files: where each row's bytes are in the file.

An Arrow file that is not compressed holds the bytes of a column one after another, so a row is read as a part of the
file. Parquet is packed in pages; it is converted once to Arrow, in $XDG_CACHE_HOME/fastmagn/tables, by default in
~/.cache/fastmagn/tables, which takes as much room as the images.
"""

import errno
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastmagn.data.files.content import TOLD_FROM_BYTES, cache_file, file_key, is_settled
from fastmagn.data.files.shard_index import Members
from fastmagn.errors import InputError, check, counted, one_line, some, without
from fastmagn.machine.console import console
from fastmagn.machine.files import check_room, replace_file
from fastmagn.machine.waiting_lock import waiting_lock

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise without("pyarrow", error, "data.name: got hf, which needs PyArrow; install 'fastmagn[hf]'.") from error

_KEY = b"fastmagn"  # in the metadata of a converted file: the state of the file that it was made of
_ROWS_AT_A_TIME = 64
_MAX_RATIO, _SMALL_BYTES = 256, 1 << 26  # encoded images hardly shrink; a bomb would fill the disk
_PARQUET = b"PAR1"
_LABEL_NAMES = ("label", "labels")
_IMAGES = "holds encoded images (binary, or a struct with a field bytes)"


class Columns(NamedTuple):
    """The columns of the images and of the labels, and the class names if the features have them."""

    image: str
    label: str
    class_names: tuple[str, ...] | None


def find_columns(file: str, image: str | None, label: str | None) -> Columns:
    """The columns of a parquet or arrow file: those that were named, or those that the features or the types tell.

    Raises:
        InputError: The file is damaged; a column is missing, not the only one of its kind, or of another type.
    """
    schema = _schema(file)
    features = _features(schema)
    image = image or _only(file, schema, "image_column", _image_columns(schema, features), _IMAGES)
    label = label or _only(file, schema, "label_column", _label_columns(schema, features), "is named label or labels")
    for field, name in (("data.image_column", image), ("data.label_column", label)):
        check(name in schema.names, field, name, f"a column of {file}: {', '.join(schema.names)}")
        count = schema.names.count(name)
        check(count == 1, field, name, f"a name that one column of {file} has, not {count}: {', '.join(schema.names)}")
    kind = schema.field(image).type
    if not (_is_bytes(kind) or _has_bytes(kind)):
        raise InputError(
            f"{file}: the column {image!r} (data.image_column) is {kind}; expected encoded images: binary, or a struct"
            " with a field bytes."
        )
    kind = schema.field(label).type
    if not (pa.types.is_integer(kind) or _is_text(kind)):
        raise InputError(
            f"{file}: the column {label!r} (data.label_column) is {kind}; expected integers or class names (strings)."
        )
    names: Any = features.get(label, {}).get("names")
    is_named = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    if is_named and len(set(names)) < len(names):
        twice = some(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{file}: the features of {label!r} name classes twice: {twice}; expected each once.")
    return Columns(image, label, tuple(names) if is_named else None)


def read_rows(file: str, columns: Columns, called: str | None = None) -> Members:
    """The rows of an arrow file that is not compressed. A row without bytes counts as a broken image.

    Args:
        file: The file.
        columns: Which of its columns.
        called: What messages call it, such as the file that it was converted from.

    Raises:
        InputError: The file is damaged, a row has no label, or the rows hold the images' paths in place of their bytes.
    """
    called = called or file
    found, num_paths = Members([], [], []), 0
    with _damage_explained(called), pa.memory_map(file) as mapped:
        base = mapped.read_buffer(mapped.size()).address
        for batch in _arrow_batches(mapped):
            first = len(found.names)
            images, labels = batch.column(columns.image), batch.column(columns.label)
            if labels.null_count:
                row = first + int(np.flatnonzero(labels.is_null().to_numpy(zero_copy_only=False))[0])
                raise InputError(f"{called}: row {row} has no label; expected one in the column {columns.label!r}.")
            num_paths += _num_paths(images)
            found.spans.extend(_spans(images, base, mapped.size()))
            found.labels.extend(map(str, labels.to_pylist()))
            found.names.extend(f"row {row}" for row in range(first, first + len(batch)))
    if not found.names:
        raise InputError(f"{called}: has no rows; expected images.")
    if num_paths == len(found.names):
        raise InputError(
            f"{called}: its column {columns.image!r} holds paths of image files; expected their bytes, which"
            " save_to_disk of datasets writes."
        )
    return found


def _num_paths(images: pa.Array) -> int:
    """How many rows have a path and no bytes."""
    if not pa.types.is_struct(images.type) or images.type.get_field_index("path") < 0:
        return 0
    return pc.sum(pc.and_(images.field("bytes").is_null(), images.field("path").is_valid())).as_py() or 0


class _Conversion(NamedTuple):
    """A file whose rows are packed, and the arrow file that it is converted to."""

    file: str
    place: Path
    num_bytes: int
    key: bytes | None  # of the file's state; None if that may still change

    def is_made(self) -> bool:
        return self.key is not None and _is_made_of(self.place, self.key)


def as_arrow(files: Sequence[str], columns: Columns) -> list[str]:
    """The paths of arrow files with these columns: each of `files`, or what it was converted to if its rows are packed.

    Raises:
        InputError: A file is damaged, or the disk of the cache has no room for all that are not converted yet.
    """
    packed = {file: _conversion(file, columns) for file in files if _is_packed(file, columns.image)}
    missing, is_checked = [one for one in packed.values() if not one.is_made()], False
    for number, one in enumerate(missing):
        with _failure_explained(one.file, one.place):
            one.place.parent.mkdir(parents=True, exist_ok=True)
            with waiting_lock(one.place.with_suffix(".lock")):
                if one.is_made():  # by another process, which has just ended
                    continue
                if not is_checked:
                    _check_room([other for other in missing[number:] if not other.is_made()])
                    is_checked = True
                _convert(one.file, one.place, columns, one.key)
    return [str(packed[file].place) if file in packed else file for file in files]


def _conversion(file: str, columns: Columns) -> _Conversion:
    place = cache_file("tables", f"{os.path.realpath(file)} {columns.image} {columns.label}")
    if place is None:
        raise InputError(f"{file}: is converted to Arrow once, in the folder XDG_CACHE_HOME, which is not set.")
    start, status = time.time(), os.stat(file)
    key = file_key("table 1", status) if is_settled(status, start) else None
    return _Conversion(file, place.with_suffix(".arrow"), status.st_size, key)


def _check_room(missing: Sequence[_Conversion]) -> None:
    """Raise an InputError unless all files can be converted; a line tells of many bytes."""
    place, num_bytes = missing[0].place, sum(one.num_bytes for one in missing)
    with _failure_explained(some(one.file for one in missing), place):
        check_room(place.parent, num_bytes)
    if num_bytes >= TOLD_FROM_BYTES:
        console.print(
            f"converting {counted(len(missing), 'file', ',')}, {num_bytes / 1e9:,.0f} GB, once: images are read from"
            f" Arrow files in {place.parent}",
            soft_wrap=True,
        )


@contextmanager
def _failure_explained(what: str, place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{what}: cannot be converted to Arrow in {place.parent} ({one_line(error)}); make room there, or give"
            " another XDG_CACHE_HOME."
        ) from error


def _convert(file: str, place: Path, columns: Columns, key: bytes | None) -> None:
    schema, num_bytes = _schema(file), 0
    wanted = pa.schema([schema.field(columns.image), schema.field(columns.label)], {_KEY: key} if key else None)
    most = _MAX_RATIO * os.path.getsize(file) + _SMALL_BYTES
    with _damage_explained(file), replace_file(place) as out, pa.ipc.new_stream(out, wanted) as writer:
        for batch in _batches(file, [columns.image, columns.label]):
            num_bytes += batch.nbytes
            if num_bytes > most:
                raise InputError(f"{file}: unpacks to more than {most:,} bytes; expected encoded images, which do not.")
            writer.write_batch(pa.record_batch([batch.column(name) for name in wanted.names], schema=wanted))


def _batches(file: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a parquet or arrow file, some at a time."""
    if _is_parquet(file):
        with _damage_explained(file), pq.ParquetFile(file, pre_buffer=False) as table:
            yield from table.iter_batches(_ROWS_AT_A_TIME, columns=columns)
    else:
        with pa.memory_map(file) as mapped:
            yield from _arrow_batches(mapped)


def _arrow_batches(mapped: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    reader = _reader(mapped)
    is_file = isinstance(reader, pa.RecordBatchFileReader)
    for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
        batch.validate(full=True)  # offsets that lie outside would be read without a check
        yield batch


def _reader(mapped: pa.MemoryMappedFile) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    mapped.seek(0)
    is_file = mapped.read(6) == b"ARROW1"
    mapped.seek(0)
    return pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)


def _schema(file: str) -> pa.Schema:
    with _damage_explained(file):
        if _is_parquet(file):
            return pq.read_schema(file)
        with pa.memory_map(file) as mapped:
            return _reader(mapped).schema


def _spans(images: pa.Array, base: int, num_bytes: int) -> list[tuple[int, int]]:
    """Offset and size of each row's bytes in the mapped file; size 0 for a row without bytes."""
    data = images.field("bytes") if pa.types.is_struct(images.type) else images
    _, offsets, values = data.buffers()
    kind = np.int64 if pa.types.is_large_binary(data.type) or pa.types.is_large_string(data.type) else np.int32
    ends = np.frombuffer(offsets, kind, data.offset + len(data) + 1)[data.offset :].astype(np.int64)
    sizes = np.diff(ends)
    start = 0 if values is None else values.address - base
    is_inside = (sizes >= 0).all() and (not sizes.any() or 0 <= start + ends[0] <= start + ends[-1] <= num_bytes)
    if not is_inside:
        raise ValueError("offsets of rows lie outside the file")
    is_null = images.is_null().to_numpy(zero_copy_only=False) | data.is_null().to_numpy(zero_copy_only=False)
    sizes[is_null] = 0
    return list(zip((start + ends[:-1]).clip(0).tolist(), sizes.tolist(), strict=True))


def _is_packed(file: str, image: str) -> bool:
    """Whether the bytes of the rows do not lie in the file as they are: parquet, or compressed Arrow."""
    if _is_parquet(file):
        return True
    with _damage_explained(file), pa.memory_map(file) as mapped:
        base = mapped.read_buffer(mapped.size()).address
        batch = next(_arrow_batches(mapped), None)
        if batch is None or not len(batch):
            return False
        images = batch.column(image)
        values = (images.field("bytes") if pa.types.is_struct(images.type) else images).buffers()[2]
        return values is not None and not base <= values.address <= base + mapped.size()


def _is_made_of(place: Path, key: bytes) -> bool:
    try:
        return (_schema(str(place)).metadata or {}).get(_KEY) == key
    except InputError:
        return False


def _is_parquet(file: str) -> bool:
    with open(file, "rb") as opened:
        return opened.read(len(_PARQUET)) == _PARQUET


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the metadata of Hugging Face `datasets` say of the columns; empty if there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _image_columns(schema: pa.Schema, features: dict[str, dict[str, Any]]) -> list[str]:
    by_feature = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    return by_feature or [field.name for field in schema if _is_bytes(field.type) or _has_bytes(field.type)]


def _label_columns(schema: pa.Schema, features: dict[str, dict[str, Any]]) -> list[str]:
    by_feature = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    return by_feature or [name for name in _LABEL_NAMES if name in schema.names]


def _only(file: str, schema: pa.Schema, field: str, found: list[str], kind: str) -> str:
    if len(found) != 1:
        which = f"columns {', '.join(found)} may be meant" if found else f"no column {kind}"
        raise InputError(f"data.{field}: {file}: {which}; expected one of its columns: {', '.join(schema.names)}.")
    return found[0]


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _has_bytes(kind: pa.DataType) -> bool:
    at = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    return at >= 0 and _is_bytes(kind.field(at).type)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


@contextmanager
def _damage_explained(file: str) -> Iterator[None]:
    """Turn PyArrow's exceptions, which are of many types, into an InputError; a full disk stays an OSError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        raise InputError(
            f"{file}: cannot be read as parquet or Arrow ({one_line(error, 120)}); fetch or make it anew."
        ) from error

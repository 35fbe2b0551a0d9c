"""Parquet and Arrow files of the images of a photo folder, in the layouts of Hugging Face `datasets`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.photo_folders import CLASSES

FEATURES = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}


def table(images: list[bytes | None], labels: list[Any], features: dict | None = FEATURES) -> pa.Table:
    """A table as `datasets` writes it: structs of bytes and path, and labels."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": image, "path": f"{row}.jpg"} for row, image in enumerate(images)], kind)
    made = pa.table({"image": column, "label": labels})
    if features is None:
        return made
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(path: Path, content: pa.Table, compression: str | None = None, is_file: bool = False) -> Path:
    """Parquet, or an Arrow stream or file, of several batches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=5)
        return path
    options = pa.ipc.IpcWriteOptions(compression=compression)
    make = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as out, make(out, content.schema, options=options) as writer:
        writer.write_table(content, max_chunksize=4)
    return path


def make_tables(root: Path, photos: Path, layout: str) -> Path:
    """`root` with a photo folder's images, in two files per split: layout parquet, disk, file, or compressed."""
    for part, split in (("train", "train"), ("val", "validation")):
        paths = sorted((photos / part).rglob("*.jpg"))
        for number, rows in enumerate(np.array_split(np.arange(len(paths)), 2)):
            images = [paths[row].read_bytes() for row in rows]
            labels = [CLASSES.index(paths[row].parent.name) for row in rows]
            name = f"data/{split}-0000{number}-of-00002.parquet"
            if layout != "parquet":
                name = f"{split}/data-0000{number}-of-00002.arrow"
            write(root / name, table(images, labels), "zstd" if layout == "compressed" else None, layout == "file")
    return root

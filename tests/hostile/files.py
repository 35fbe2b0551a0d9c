"""What attacks are put into: run folders, -C sets and archives that are sound but for the payload."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RUN_YAML = "data: {name: digits}\nmodel: {name: resnet_small}\neval: {num_images: 20}\ndevice: cpu\n"
IMAGES = np.zeros((10, 8, 8, 3), np.uint8)
LABELS = np.zeros(10, np.uint8)


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy_header(shape: str, descr: str = "'|u1'") -> bytes:
    """A .npy file of three bytes whose header says `shape`."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\x00\x01\x02"


def write_run_folder(folder: Path) -> Path:
    """A run folder with its config.yaml, without a checkpoint."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(RUN_YAML)
    return folder


def sealed(content: bytes) -> bytes:
    """A forger's checkpoint: any bytes with the checksum that they should have; a zip archive is told of it."""
    comment = b"fastmagn step %012d sha256 " % 3
    if content.startswith(b"PK"):
        assert content[-2:] == b"\0\0"
        content = content[:-2] + (len(comment) + 64).to_bytes(2, "little")
    content += comment
    return content + hashlib.sha256(content).hexdigest().encode()


def write_corrupted_set(
    folder: Path, files: dict[str, bytes], change: Callable[[dict[str, Any]], None] = lambda manifest: None
) -> Path:
    """A -C set of one corruption, fog, with `files` put in; its manifest says what they hold, and then `change`s."""
    contents = {"fog.npy": npy(IMAGES), "labels.npy": npy(LABELS)} | files
    manifest = {
        "format_version": 1,
        "dataset": "digits",
        "num_images": 2,
        "image_shape": [8, 8, 3],
        "seed": 0,
        "corruptions": ["fog"],
        "source": {"images_sha256": "0" * 64, "labels_sha256": "0" * 64},
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()
        },
    }
    change(manifest)
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder

"""Tar shards of the images of a folder, in the folder's order, written by Python's tarfile."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np

from tests.helpers.photo_folders import CLASSES


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member of an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """An archive of these members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            add(archive, name, content)
    return path


def sample(key: str, path: Path, as_json: bool = False) -> dict[str, bytes]:
    """The members of an image of a photo folder; a number in KEY.cls, or a class name in KEY.json."""
    name = path.parent.name
    if as_json:
        return {f"{key}.json": json.dumps({"label": name}).encode(), f"{key}{path.suffix}": path.read_bytes()}
    return {f"{key}{path.suffix}": path.read_bytes(), f"{key}.cls": str(CLASSES.index(name)).encode()}


def make_shards(root: Path, photos: Path, num_shards: int = 3, as_json: bool = False, val: str = "val") -> Path:
    """`root` with train-000.tar, ... and val-000.tar, ...: the photos of a folder, in its order."""
    for part, split in (("train", "train"), ("val", val)):
        paths = sorted((photos / part).rglob("*.jpg"))
        for number, rows in enumerate(np.array_split(np.arange(len(paths)), num_shards)):
            members: dict[str, bytes] = {}
            for row in rows:
                members |= sample(f"{row:06}", paths[row], as_json)
            write_tar(root / f"{split}-{number:03}.tar", members)
    if not as_json:
        (root / "classes.txt").write_text("\n".join(CLASSES))
    return root

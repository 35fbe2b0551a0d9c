"""Two processes that need the same shards at once: one reads them, the other waits, and both know the same images."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import processes
from tests.helpers.shards import write_tar

INDEX = """
import json, os, sys, time
from functools import partial
from pathlib import Path

from fastmagn.data.files import content, shard_index

content._SETTLED_S = -3600.0  # the files have just been made
kind, root, own_dir = sys.argv[1], Path(sys.argv[2]), sys.argv[3]


def slowly(work, where):
    def logged(*arguments):
        with (root / "log").open("a") as log:
            log.write(f"{os.getpid()} {os.path.basename(arguments[0])}\\n")
        time.sleep(0.6)
        return work(*arguments)

    return logged


files = sorted(str(path) for path in Path(own_dir).glob("train-*"))
(root / f"ready-{os.getpid()}").touch()
while len(list(root.glob("ready-*"))) < 2:
    time.sleep(0.005)
if kind == "tar":
    from fastmagn.data.files.tar_members import read_tar

    read = slowly(partial(read_tar, label_column="label"), root)
else:
    from fastmagn.data.files import arrow_rows

    arrow_rows._convert = slowly(arrow_rows._convert, root)
    columns = arrow_rows.find_columns(files[0], None, None)
    files = arrow_rows.as_arrow(files, columns)
    read = partial(arrow_rows.read_rows, columns=columns)
names = [os.path.basename(file) for file in files]
found = shard_index.index_shards(Path(own_dir), names, files, read, kind)
print(json.dumps([found.names, found.labels, found.spans.spans.tolist(), found.headers.tolist()]))
"""


def image(seed: int) -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 11 + seed, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def make_tar(path: Path, first: int) -> None:
    members = {}
    for row in range(first, first + 3):
        members |= {f"{row:03}.png": image(row), f"{row:03}.cls": str(row % 2).encode()}
    write_tar(path, members)


def make_parquet(path: Path, first: int) -> None:
    from tests.helpers.tables import table, write

    write(path, table([image(row) for row in range(first, first + 3)], [row % 2 for row in range(first, first + 3)]))


@pytest.mark.process
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_one_process_reads_and_the_other_waits(tmp_path, kind):
    """The second one names the folder by another path."""
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra hf")
    shards = tmp_path / "shards"
    for number in range(2):
        (make_tar if kind == "tar" else make_parquet)(shards / f"train-{number}.{kind}", 3 * number)
    (tmp_path / "link").symlink_to("shards")
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    started = [
        processes.start(["-c", INDEX, kind, tmp_path, tmp_path / name], tmp_path, **cache)
        for name in ("shards", "link")
    ]
    ended = [process.communicate(timeout=processes.LIMIT_S) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in ended)
    assert first == second
    read = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(name for _, name in read) == ["train-0." + kind, "train-1." + kind]
    assert len({pid for pid, _ in read}) == 1 or kind == "parquet"
    labels, headers = first[1], first[3]
    assert labels == [str(row % 2) for row in range(6)]
    assert headers == [[9, 11 + row, 0] for row in range(6)]
    if kind == "tar":
        for number, (shard, offset, size) in enumerate(first[2]):
            with tarfile.open(shards / f"train-{shard}.tar") as archive:
                member = archive.getmember(f"{number:03}.png")
                assert (member.offset_data, member.size) == (offset, size)
    assert not [name for name in os.listdir(tmp_path / "cache" / "fastmagn" / "shards") if name.endswith(".lock")]

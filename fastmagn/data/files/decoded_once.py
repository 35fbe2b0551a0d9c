"""Image files, decoded once into a file without a name: for work that reads the pixels again and again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import cast

import numpy as np

from fastmagn.data.files.items import read_into
from fastmagn.data.files.on_demand import FolderImages, chunks
from fastmagn.data.image_set import Images, rows_within


class StoredImages:
    """Images uint8 [N, H, W, 3], one after another in a file; a slice reads these rows.

    Args:
        descriptor: The open file; several threads may read it at once.
        shape: (N, H, W, 3).
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, descriptor: int, shape: tuple[int, ...]) -> None:
        self._descriptor, self.shape = descriptor, shape
        self.nbytes = int(np.prod(shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, stop, step = rows.indices(len(self))
        assert step == 1
        images_u8 = np.empty((max(0, stop - first), *self.shape[1:]), np.uint8)
        read_into(self._descriptor, first * (self.nbytes // len(self)), memoryview(images_u8.reshape(-1)))
        return images_u8


def stored_bytes(images_u8: Images) -> int:
    """How much room `decoded_once` needs on the disk."""
    return images_u8.nbytes if isinstance(images_u8, FolderImages) else 0


@contextmanager
def decoded_once(images_u8: Images, folder: Path) -> Iterator[Images]:
    """The same images, of which any slice is read quickly and alone.

    Image files are decoded into an unnamed file in `folder`, which vanishes at the end, also if the process dies. Other
    images, which are arrays or made of arrays, are yielded as they are.

    Raises:
        OSError: The disk is full.
    """
    if not isinstance(images_u8, FolderImages):
        yield images_u8
        return
    with TemporaryFile(dir=folder) as file:
        for chunk in chunks(images_u8, rows_within(images_u8)):
            file.write(chunk)
        file.flush()
        yield cast(Images, StoredImages(file.fileno(), images_u8.shape))

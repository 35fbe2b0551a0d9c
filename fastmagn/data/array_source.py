"""Training batches from arrays that stay where they are: a batch's rows are read and made images when needed."""

from collections.abc import Iterator

import numpy as np
import torch

from fastmagn.data.image_set import ImagePart
from fastmagn.data.source import Batch, Source, as_batch, to_device


class ArraySource(Source):
    """A source of the batches of `DeviceSource`, one of them in memory at a time: of ArrayImages of a mapped file."""

    def _open(self, part: ImagePart) -> None:
        self._images_u8, self._labels = part.images_u8, part.labels

    def _read(self, order: np.ndarray, parts: Iterator[slice], epoch: int) -> Iterator[Batch]:
        for part in parts:
            labels = torch.from_numpy(self._labels[order[part]])
            rows = self._with_partners(order[part], epoch)
            images = torch.from_numpy(np.asarray(self._images_u8[rows])).permute(0, 3, 1, 2)
            yield as_batch(to_device(images, self._device), to_device(labels, self._device), self._indices[rows])

"""Training batches from arrays that stay where they are: a batch's rows are read and made images when needed.

Shape letters: N images of the set, B batch.
"""

from collections.abc import Iterator

import numpy as np
import torch

from fastmagn.data.image_set import ImagePart
from fastmagn.data.source import Batch, add_partners, as_batch, check_batch_size, to_device
from fastmagn_kernels.random import rng


class ArraySource:
    """Yields the batches that `DeviceSource` would, the same images in the same order, one batch in memory at a time.

    Args:
        part: Images to train on, such as ArrayImages of a mapped file.
        batch_size: Images per step of all processes together, 1..N. The images after an epoch's last full batch are
            dropped.
        seed: The run's seed, 0..2^64 - 1.
        device: Where the batches go.
        share: The rows of each batch to yield, if several processes share it; all by default.
        num_partners: Number of partners of each image, 0..4.

    Raises:
        InputError: `batch_size` is below 1 or above N.
    """

    def __init__(
        self,
        part: ImagePart,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        share: slice | None = None,
        num_partners: int = 0,
    ) -> None:
        check_batch_size(batch_size, len(part.labels))
        self.batch_size, self.seed = batch_size, seed
        self._part, self._device = part, torch.device(device)
        self._share, self._num_partners = share or slice(0, batch_size), num_partners

    @property
    def steps_per_epoch(self) -> int:
        return len(self._part.indices) // self.batch_size

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This process's share of the epoch's batches from `start_step`, ordered by `rng.permutation(N, seed, epoch)`.

        Args:
            epoch: 0..2^32 - 2.
            start_step: First batch to yield, 0..steps_per_epoch; the batches do not depend on it.
        """
        assert 0 <= start_step <= self.steps_per_epoch
        order = rng.permutation(len(self._part.indices), self.seed, epoch)
        for step in range(start_step, self.steps_per_epoch):
            first = step * self.batch_size
            rows = order[first + self._share.start : first + self._share.stop]
            labels = torch.from_numpy(self._part.labels[rows])
            if self._num_partners:
                rows = add_partners(rows, self._num_partners, self._part.indices, self.seed, epoch)
            images = torch.from_numpy(np.asarray(self._part.images_u8[rows])).permute(0, 3, 1, 2)
            yield as_batch(to_device(images, self._device), to_device(labels, self._device), self._part.indices[rows])

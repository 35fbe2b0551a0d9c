"""Training batches from a set that is in the device's memory: only an epoch's order is copied from the host.

Random stream: STREAM_PARTNER, slot 0; word k draws the k-th partner of a sample from all training images.

Shape letters: N images of the set, B batch, P partners of an image, C H W image.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from fastmagn.data.image_set import ImagePart
from fastmagn.errors import InputError, check, counted
from fastmagn_kernels.random import rng


class Partners(NamedTuple):
    """Other training images for each image of a batch: the first partner of each, then the second of each, and so on.

    Args:
        images: uint8 [P*B, C, H, W] on the device, channels-last strides.
        indices: int64 [P*B] on the host: indices in the full training set.
    """

    images: torch.Tensor
    indices: np.ndarray

    def of(self, part: slice, batch_size: int) -> "Partners":
        """The partners of a part of the batch, whose size is `batch_size`."""
        images = self.images.unflatten(0, (-1, batch_size))[:, part].flatten(0, 1)
        return Partners(images, self.indices.reshape(-1, batch_size)[:, part].ravel())


class Batch(NamedTuple):
    """One training batch, or a process's share of it.

    Args:
        images: uint8 [B, C, H, W] on the device, channels-last strides.
        labels: int64 [B] on the device.
        indices: int64 [B] on the host: indices in the full training set, on which the views' randomness depends.
        partners: Drawn from the training part if the method uses them, else None.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: np.ndarray
    partners: Partners | None = None

    def pieces(self, num_pieces: int) -> list["Batch"]:
        """The batch, cut into `num_pieces` pieces of equal size, in order."""
        size = len(self.indices) // num_pieces

        def piece(part: slice) -> Batch:
            partners = self.partners and self.partners.of(part, len(self.indices))
            return Batch(self.images[part], self.labels[part], self.indices[part], partners)

        return [piece(slice(first, first + size)) for first in range(0, num_pieces * size, size)]


def as_batch(images: torch.Tensor, labels: torch.Tensor, indices: np.ndarray) -> Batch:
    """A batch of B labels. If there are more than B images and indices, the others are the partners."""
    size = len(labels)
    partners = Partners(images[size:], indices[size:]) if len(indices) > size else None
    return Batch(images[:size], labels, indices[:size], partners)


def add_partners(rows: np.ndarray, num_partners: int, indices: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """`rows` and the rows of their partners, int64 [(1 + P) B].

    A partner is any image of the training part, each as likely as the others. It is a function of seed, epoch and the
    sample's index, so neither the batch nor the number of processes changes it.

    Args:
        rows: Rows of the training part, int64 [B].
        num_partners: P, 1..4.
        indices: The part's indices in the full training set, int64 [N].
        seed: The run's seed, 0..2^64 - 1.
        epoch: The epoch, from 0.
    """
    words = np.empty((len(rows), 4), np.uint32)
    rng.words_batch(words, 0, rng.STREAM_PARTNER, 0, indices[rows], epoch, *rng.key_words(seed))
    partners = words[:, :num_partners].T.astype(np.uint64) * np.uint64(len(indices)) >> np.uint64(32)
    return np.concatenate([rows, partners.astype(np.int64).ravel()])


def check_batch_size(batch_size: int, num_images: int) -> None:
    """Raise InputError unless an epoch of `num_images` has a full batch."""
    check(batch_size >= 1, "train.batch_size", batch_size, "1 or more")
    if batch_size > num_images:
        raise InputError(
            f"train.batch_size: got {batch_size}; the training set has {counted(num_images, 'image')}, and an epoch"
            f" has full batches only; expected 1..{num_images}."
        )


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on `device`; to CUDA it goes through pinned memory, as other copies would wait for the device."""
    if device.type != "cuda":
        return tensor
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


class Source(ABC):
    """Yields a training part's batches, in an order that is a pure function of (seed, epoch).

    Args:
        part: Images to train on.
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
        self._indices, self._device = part.indices, torch.device(device)
        self._share, self._num_partners = share or slice(0, batch_size), num_partners
        self._open(part)

    @property
    def num_images(self) -> int:
        return len(self._indices)

    @property
    def steps_per_epoch(self) -> int:
        return self.num_images // self.batch_size

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """This process's share of the epoch's batches from `start_step`, ordered by `rng.permutation(N, seed, epoch)`.

        Args:
            epoch: 0..2^32 - 2.
            start_step: First batch to yield, 0..steps_per_epoch; the batches do not depend on it.

        Raises:
            InputError: The images cannot be read.
        """
        assert 0 <= start_step <= self.steps_per_epoch
        order = rng.permutation(len(self._indices), self.seed, epoch)
        firsts = (step * self.batch_size for step in range(start_step, self.steps_per_epoch))
        return self._read(
            order, (slice(first + self._share.start, first + self._share.stop) for first in firsts), epoch
        )

    @abstractmethod
    def _open(self, part: ImagePart) -> None:
        """Take what `_read` needs of the part's images."""

    @abstractmethod
    def _read(self, order: np.ndarray, parts: Iterator[slice], epoch: int) -> Iterator[Batch]:
        """The batches whose rows are these parts of the epoch's order, int64 [N]."""

    def _with_partners(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Rows of the training part, int64 [B], and those of their partners: int64 [(1 + P) B]."""
        if not self._num_partners:
            return rows
        return add_partners(rows, self._num_partners, self._indices, self.seed, epoch)


class DeviceSource(Source):
    """A source whose images are on the device (154 MB for CIFAR); on the CPU their memory is shared, not copied."""

    def _open(self, part: ImagePart) -> None:
        self._images_nhwc = torch.from_numpy(np.asarray(part.images_u8)).to(self._device)
        self._labels = torch.from_numpy(part.labels).to(self._device)

    def _read(self, order: np.ndarray, parts: Iterator[slice], epoch: int) -> Iterator[Batch]:
        device_order = torch.from_numpy(order).to(self._device)
        for part in parts:
            rows, device_rows = order[part], device_order[part]
            labels = self._labels.index_select(0, device_rows)
            if self._num_partners:
                rows = self._with_partners(rows, epoch)
                device_rows = to_device(torch.from_numpy(rows), self._device)
            # An image in NHWC storage is one contiguous copy of 3 KB; the permuted view is channels last at no cost.
            images = self._images_nhwc.index_select(0, device_rows).permute(0, 3, 1, 2)
            yield as_batch(images, labels, self._indices[rows])

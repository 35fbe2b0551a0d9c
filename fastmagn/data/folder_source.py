"""Training batches from image files, decoded a few batches ahead on threads by Pillow or DALI.

The order of the images and the crop of each are a pure function of (seed, epoch, sample index), drawn here for every
decoder. So neither the batch size, the number of processes, the decoder nor an interruption changes an image, and a
resumed run needs no state except its position. For this reason DALI decodes the crops it is given (`image_slice`) and
neither shuffles nor shards: its `readers.file` shuffles within a buffer, whose state the other decoder does not have.

Shape letters: N images of the set, B batch, S image_size.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import wait

import numpy as np
import torch
from torch import Tensor

from fastmagn.config.schema import DataConfig
from fastmagn.data.array_images import ArrayImages
from fastmagn.data.array_source import ArraySource
from fastmagn.data.files.crops import BATCHES_AHEAD, Decoder, Pending, PillowDecoder, has_dali
from fastmagn.data.files.decoding import Unreadable, warn_of_grey
from fastmagn.data.files.headers import ImageFiles
from fastmagn.data.files.on_demand import FolderImages
from fastmagn.data.image_set import ImagePart
from fastmagn.data.source import Batch, DeviceSource, Source, as_batch, to_device
from fastmagn.errors import InputError, Stalled, one_line, warn_caller
from fastmagn_kernels.random import crops, rng

PILLOW = ("pillow", "torchvision")  # `data.source`: today's name, and that of older configurations
ON_DEVICE_BYTES = 1 << 32
STALL_S = 300.0  # a disk that has not answered by then is taken for dead


class FolderSource(Source):
    """A source of random resized crops of image files, each a function of (seed, epoch, sample index).

    Images are not flipped here: the flip is one of the views' parameters (`augment.horizontal_flip`). Mid-grey stands
    in for an image that cannot be decoded: every index still comes once, and a warning at the end of the epoch counts
    these.

    Raises:
        InputError: As `Source`; or `data.source` is dali, which is not installed. While batches are read: none of a
            batch's images can be, or an image has not come for STALL_S.
    """

    def _open(self, part: ImagePart) -> None:
        assert isinstance(part.images_u8, FolderImages)
        self._labels, self._files, self._config = part.labels, part.images_u8.files, part.images_u8.config
        self._decoder = choose_decoder(self._files, self._config, self._device)

    @property
    def description(self) -> str:
        """Which decoder is used, in words."""
        return self._decoder.description

    def boxes(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """The random resized crops of `rows` [B]: int64 [B, 4], top, left, height, width, px."""
        boxes = np.empty((len(rows), 4), np.int64)
        keys = rng.key_words(self.seed)
        min_area = float(self._config.min_crop_area)
        crops.fill_crops(self._indices[rows], epoch, *keys, self._files.sizes[rows], min_area, boxes)
        return boxes

    def _read(self, order: np.ndarray, parts: Iterator[slice], epoch: int) -> Iterator[Batch]:
        shares = (self._with_partners(order[part], epoch) for part in parts)
        batch = self._share.stop - self._share.start
        pending: deque[tuple[np.ndarray, Pending]] = deque()
        unreadable: list[Unreadable] = []
        try:
            while True:
                while len(pending) <= BATCHES_AHEAD and (rows := next(shares, None)) is not None:
                    pending.append((rows, self._decoder.start(rows, self.boxes(rows, epoch))))
                if not pending:
                    break
                rows, decoding = pending.popleft()
                images, faults = self._finished(decoding)
                unreadable += faults
                if not pending:  # the last batch: its epoch is over before the next batch is asked for
                    warn_of_grey(unreadable, self._files.root)
                    unreadable = []
                labels = to_device(torch.from_numpy(self._labels[rows[:batch]]), self._device)
                yield as_batch(images.permute(0, 3, 1, 2), labels, self._indices[rows])
        finally:
            for _, decoding in pending:
                for future in decoding.work:
                    future.cancel()
            warn_of_grey(unreadable, self._files.root)

    def _finished(self, decoding: Pending) -> tuple[Tensor, list[Unreadable]]:
        _, late = wait(decoding.work, timeout=STALL_S)
        if late:
            item = next(item for item, future in zip(decoding.items, decoding.work, strict=True) if future in late)
            raise Stalled(
                f"{self._files.root}: no image for {STALL_S:.0f} s, waiting for {item}; expected a disk that answers."
                " The same command resumes from the last checkpoint."
            )
        images, unreadable = decoding.finish()
        if len(unreadable) == len(images) > 1:
            raise InputError(
                f"{self._files.root}: none of the {len(images)} images of a batch can be read: {unreadable[0]};"
                " expected the files that were there at the start. The same command resumes from the last checkpoint."
            )
        if images.device.type != self._device.type:
            return to_device(images, self._device), unreadable
        if images.is_cuda:
            images.record_stream(torch.cuda.current_stream(self._device))  # the decoder's stream made them
        return images, unreadable


def make_source(
    part: ImagePart, *, batch_size: int, seed: int, device: torch.device, share: slice, num_partners: int = 0
) -> Source:
    """The source of a training part's batches.

    Image files are decoded when needed. Arrays in memory are moved to the device. Other arrays, which may be mapped
    files, are too, if that is a GPU and they take up to 4 GiB; if not, their rows are read when needed.
    """
    images_u8 = part.images_u8
    kind: type[Source] = DeviceSource
    if isinstance(images_u8, FolderImages):
        kind = FolderSource
    elif isinstance(images_u8, ArrayImages) and (device.type == "cpu" or images_u8.nbytes > ON_DEVICE_BYTES):
        kind = ArraySource
    return kind(part, batch_size=batch_size, seed=seed, device=device, share=share, num_partners=num_partners)


def choose_decoder(files: ImageFiles, config: DataConfig, device: torch.device) -> Decoder:
    """The decoder that `data.source` names.

    A DALI that is installed but cannot be imported is a warning if the source is auto.

    Raises:
        InputError: It is dali, which is not installed.
    """
    if config.source in PILLOW or (config.source == "auto" and not has_dali()):
        return PillowDecoder(files, config, device)
    try:
        from fastmagn.data.files.dali_crops import DaliDecoder
    except Exception as error:  # of many types: a library that is missing, a version that does not fit
        if config.source != "auto":
            raise
        warn_caller(f"NVIDIA DALI cannot be used ({one_line(error.__cause__ or error)}): Pillow decodes the images.")
        return PillowDecoder(files, config, device)
    return DaliDecoder(files, config, device)

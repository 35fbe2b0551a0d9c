"""Crops of image files, decoded ahead on threads. Pillow decodes here; `dali_crops` does it with NVIDIA DALI.

Shape letters: B batch, S image_size.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.decoding import Unreadable, fill, open_image, tried, upright_rgb
from fastmagn.data.files.headers import ImageFiles
from fastmagn.data.files.items import Item
from fastmagn.data.files.on_demand import num_threads
from fastmagn.errors import counted

BATCHES_AHEAD = 2  # decoded, or being decoded, beyond the one that was asked for

Box = tuple[int, int, int, int]  # top, left, height, width, px


class Pending(NamedTuple):
    """A batch that is being decoded.

    Args:
        work: The tasks that must end first; `finish` raises their exceptions.
        items: For each task, the image that it waits for.
        finish: Returns the images, uint8 [B, S, S, 3], and the files that could not be decoded, for which mid-grey
            stands in.
    """

    work: list[Future]
    items: list[Item]
    finish: Callable[[], tuple[Tensor, list[Unreadable]]]


class Decoder(Protocol):
    """Decodes a batch of its files, `rows` [B], cut out at `boxes`, int64 [B, 4]: top, left, height, width."""

    description: str

    def start(self, rows: np.ndarray, boxes: np.ndarray) -> Pending: ...


class PillowDecoder:
    """Decodes each image with Pillow on one of `data.num_workers` threads; Pillow releases the GIL meanwhile."""

    def __init__(self, files: ImageFiles, config: DataConfig, device: torch.device) -> None:
        self.files, self.image_size, self.device = files, config.image_size, device
        threads = num_threads(config)
        self.pool = ThreadPoolExecutor(threads, "decode")
        hint = "; DALI, which is faster, is not installed" if config.source == "auto" and not has_dali() else ""
        self.description = f"Pillow on {counted(threads, 'thread')}{hint}"

    def start(self, rows: np.ndarray, boxes: np.ndarray) -> Pending:
        shape = (len(rows), self.image_size, self.image_size, 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        items = [self.files.item(row) for row in rows]
        work = [
            self.pool.submit(fill_crop, item, box, out)
            for item, box, out in zip(items, boxes.tolist(), images.numpy(), strict=True)
        ]
        return Pending(work, items, lambda: (images, [fault for future in work if (fault := future.result())]))


def has_dali() -> bool:
    """Whether NVIDIA DALI is installed."""
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


def fill_crop(item: Item, box: Box, out: np.ndarray) -> Unreadable | None:
    """Decode an image's crop with Pillow into `out`, uint8 [S, S, 3]; mid-grey if that fails, and then say why."""
    return fill(out, tried(_decode_crop, item, box, len(out)))


def resize_crop(image: Image.Image, side: int) -> np.ndarray:
    """Bilinear, antialiased: torchvision's resize of a Pillow image. uint8 [side, side, 3]."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def _decode_crop(item: Item, box: Box, side: int) -> np.ndarray:
    with open_image(item) as image:
        top, left, height, width = box
        return resize_crop(upright_rgb(image).crop((left, top, left + width, top + height)), side)

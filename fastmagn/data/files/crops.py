"""Crops of image files, decoded ahead on threads."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.decoding import UNREADABLE, open_upright_rgb, reason
from fastmagn.data.files.headers import ImageFiles
from fastmagn.data.files.on_demand import GREY, num_threads

BATCHES_AHEAD = 2  # decoded, or being decoded, beyond the one that was asked for


class Pending(NamedTuple):
    """A batch that is being decoded.

    Args:
        work: What has to end first; a failure in it is raised by `finish`.
        names: For each of `work`, the file it waits for.
        finish: The images, uint8 [B, S, S, 3]; for each that could not be decoded, which is mid-grey: its name and why.
    """

    work: list[Future]
    names: list[str]
    finish: Callable[[], tuple[Tensor, list[str]]]


class Decoder(Protocol):
    """Starts to decode `rows` [B] of its files, cut out as `boxes` int64 [B, 4] (top, left, height, width) say."""

    description: str

    def start(self, rows: np.ndarray, boxes: np.ndarray) -> Pending: ...


def has_dali() -> bool:
    """Whether NVIDIA DALI is installed."""
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


class PillowDecoder:
    """Decodes each image by Pillow on one of `data.num_workers` threads; it holds no lock while it does."""

    def __init__(self, files: ImageFiles, config: DataConfig, device: torch.device) -> None:
        self.files, self.image_size, self.device = files, config.image_size, device
        threads = num_threads(config)
        self.pool = ThreadPoolExecutor(threads, "decode")
        without = "" if config.source == "torchvision" or has_dali() else "; DALI, which is faster, is not installed"
        self.description = f"Pillow on {threads} threads{without}"

    def start(self, rows: np.ndarray, boxes: np.ndarray) -> Pending:
        shape = (len(rows), self.image_size, self.image_size, 3)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        paths = [self.files.path(row) for row in rows]
        work = [
            self.pool.submit(fill_crop, path, box, out)
            for path, box, out in zip(paths, boxes.tolist(), images.numpy(), strict=True)
        ]
        return Pending(work, paths, lambda: (images, [entry for future in work if (entry := future.result())]))


def fill_crop(path: str, box: tuple[int, int, int, int], out: np.ndarray) -> str | None:
    """A file's crop, by Pillow, into `out` uint8 [S, S, 3]; or mid-grey, and the path with the reason returned."""
    try:
        out[:] = resize_crop(crop_of(open_upright_rgb(path), box), len(out))
    except UNREADABLE as error:
        out[:] = GREY
        return f"{path} ({reason(error, path)})"
    return None


def crop_of(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The box (top, left, height, width) of an image."""
    top, left, height, width = box
    return image.crop((left, top, left + width, top + height))


def resize_crop(image: Image.Image, side: int) -> np.ndarray:
    """Bilinear, antialiased: torchvision's resize of a Pillow image. uint8 [side, side, 3]."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))

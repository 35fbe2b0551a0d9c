"""Crops of JPEG files, decoded by NVIDIA DALI: only the part of a file that is needed; on a GPU, with its decoder.

On a CPU DALI decodes and Pillow resizes, because DALI's antialiased resize takes twice Pillow's time there. Files that
DALI would decode differently from Pillow (EXIF orientation, CMYK, formats other than JPEG, files that do not end as a
JPEG does) go to Pillow, image by image within a batch.

On a CPU the crops equal Pillow's bit for bit (tests/data/test_folder_source.py): both decode with libjpeg-turbo, its
accurate transform and its smooth upsampling of the colours. On a GPU nvJPEG decodes and DALI resizes; their crops
differ from Pillow's by some levels, how many has not been measured.

Shape letters: B batch, S image_size.
"""

import atexit
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastmagn.config.schema import DataConfig
from fastmagn.data.files.crops import BATCHES_AHEAD, Pending, fill_crop, resize_crop
from fastmagn.data.files.decoding import Unreadable
from fastmagn.data.files.headers import ImageFiles
from fastmagn.data.files.items import Item, read_item
from fastmagn.data.files.on_demand import num_threads
from fastmagn.errors import counted, one_line, warn_caller, without

try:
    from nvidia.dali import Pipeline, fn, pipeline_def, types
    from nvidia.dali.data_node import DataNode
except ImportError as error:
    needs = "data.source: got dali, which needs NVIDIA DALI; install 'fastmagn[dali]', or use auto or pillow."
    raise without("nvidia.dali", error, needs) from error

_LANES: "weakref.WeakSet[_Lane]" = weakref.WeakSet()


class DaliDecoder:
    """Decodes each batch in a lane: a pipeline and a thread that runs it. Other threads read the files.

    There is a lane for each batch ahead. A pipeline reuses its memory in its next run, so a lane completes a batch
    before it takes another one.
    """

    def __init__(self, files: ImageFiles, config: DataConfig, device: torch.device) -> None:
        self.files, self.image_size, self.device = files, config.image_size, device
        self.threads = num_threads(config)
        self.pool = ThreadPoolExecutor(self.threads, "decode")
        self.lanes = [_Lane(self) for _ in range(BATCHES_AHEAD)]
        self.num_started = 0
        self.description = f"DALI on {'the GPU' if device.type == 'cuda' else counted(self.threads, 'thread')}"

    def start(self, rows: np.ndarray, boxes: np.ndarray) -> Pending:
        lane = self.lanes[self.num_started % len(self.lanes)]
        self.num_started += 1
        items = {i: self.files.item(rows[i]) for i in np.flatnonzero(self.files.is_plain[rows]).tolist()}
        read = {i: self.pool.submit(_read, item) for i, item in items.items()}
        decoded = lane.thread.submit(lane.decode, rows, boxes, read)
        return Pending([*read.values(), decoded], [*items.values(), self.files.item(rows[0])], decoded.result)


class _Lane:
    def __init__(self, decoder: DaliDecoder) -> None:
        self.decoder, self.device = decoder, decoder.device
        self.thread = ThreadPoolExecutor(1, "dali")
        self.pipeline: Pipeline | None = None
        self.stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        _LANES.add(self)

    def decode(self, rows: np.ndarray, boxes: np.ndarray, read: dict[int, Future]) -> tuple[Tensor, list[Unreadable]]:
        """The crops, uint8 [B, S, S, 3], and the files that could not be decoded; `read` has the plain JPEGs' bytes."""
        decoder, on_gpu = self.decoder, self.stream is not None
        shape = (len(rows), decoder.image_size, decoder.image_size, 3)
        images = torch.empty(shape, dtype=torch.uint8, device="cpu", pin_memory=on_gpu)
        out = images.numpy()

        def by_pillow(i: int) -> Future:
            return decoder.pool.submit(fill_crop, decoder.files.item(rows[i]), boxes[i].tolist(), out[i])

        encoded = {i: data for i, future in read.items() if (data := future.result()) is not None}
        tasks = [by_pillow(i) for i in range(len(rows)) if i not in encoded]
        made = None
        if encoded:
            try:
                made = self._run(list(encoded.values()), boxes[list(encoded)], len(rows))
            except RuntimeError as error:  # one bad image fails the whole batch in DALI, and breaks the pipeline
                self.pipeline = None
                message = f"DALI cannot decode a batch ({one_line(error)}); Pillow decodes it."
                warn_caller(f"{decoder.files.root}: {message}")
                tasks += [by_pillow(i) for i in encoded]
        if made is not None and not on_gpu:
            crops = ((out[i], np.asarray(made.at(at))) for at, i in enumerate(encoded))
            tasks += [decoder.pool.submit(_resize, *crop) for crop in crops]
        unreadable = [fault for task in tasks if (fault := task.result())]
        if made is not None and self.stream is not None:
            images = self._merged(images, list(encoded), made, self.stream)
        return images, unreadable

    def _run(self, encoded: list[np.ndarray], boxes: np.ndarray, max_batch: int) -> Any:
        """A batch as DALI's tensors: crops of any size on the host, or resized crops on the GPU."""
        if self.pipeline is None or max_batch > self.pipeline.max_batch_size:
            self.pipeline = _graph(
                self.decoder.image_size,
                self.device.type == "cuda",
                batch_size=max_batch,
                num_threads=self.decoder.threads,
                device_id=self.device.index or 0 if self.device.type == "cuda" else None,
                prefetch_queue_depth=1,  # each call to `run` returns what that call was given
            )
        start, shape = (np.ascontiguousarray(part, np.int32) for part in (boxes[:, :2], boxes[:, 2:]))
        stream = () if self.stream is None else (self.stream,)
        (made,) = self.pipeline.run(*stream, encoded=encoded, start=start, shape=shape)
        return made

    def _merged(self, images: Tensor, made_at: list[int], made: Any, stream: torch.cuda.Stream) -> Tensor:
        """On the GPU, complete: `images`, with DALI's images in the rows `made_at`."""
        with torch.cuda.stream(stream):
            merged = images.to(self.device, non_blocking=True)
            merged[made_at] = torch.from_dlpack(made.as_tensor())
        stream.synchronize()
        return merged


def _read(item: Item) -> np.ndarray | None:
    """An image's bytes; None if it cannot be read, which the decoder then finds again."""
    try:
        return read_item(item)
    except OSError:
        return None


def _resize(out: np.ndarray, crop: np.ndarray) -> None:
    out[:] = resize_crop(Image.fromarray(crop), len(out))


@pipeline_def()
def _graph(image_size: int, on_gpu: bool) -> DataNode:
    encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
    start, shape = (fn.external_source(name=name, dtype=types.INT32, ndim=1) for name in ("start", "shape"))
    crop = {"start": start, "shape": shape, "axes": [0, 1], "output_type": types.RGB, "adjust_orientation": False}
    if not on_gpu:
        return fn.decoders.image_slice(encoded, **crop)
    images = fn.decoders.image_slice(encoded, device="mixed", jpeg_fancy_upsampling=True, **crop)
    return fn.resize(images, size=(image_size, image_size), interp_type=types.INTERP_LINEAR, antialias=True)


@atexit.register
def _forget_pipelines() -> None:
    """A pipeline that outlives DALI's modules cannot be shut down."""
    for lane in _LANES:
        lane.pipeline = None

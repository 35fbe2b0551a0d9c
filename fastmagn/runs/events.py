"""TensorBoard's event file, written at once and without a thread: what the disk refuses is an error of the caller."""

import io
import itertools
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

_FILE_VERSION = "brain.Event:2"
_numbers = itertools.count()  # TensorBoard reads files in the order of their names


def open_events(folder: Path, purge_step: int) -> "EventFile | None":
    """A new event file in `folder`; None where TensorBoard is not installed.

    Args:
        folder: The folder, which is made.
        purge_step: TensorBoard drops the points of earlier files from this step on.

    Raises:
        OSError: The disk refuses it.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return None
    return EventFile(folder, purge_step)


class EventFile:
    """See `open_events`. What could not be written whole is cut off again."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers):06d}"
        self._file = (folder / name).open("xb", buffering=0)
        try:
            self._write(
                Event(wall_time=time.time(), file_version=_FILE_VERSION),
                Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START)),
            )
        except OSError:
            self.close()
            raise

    def add_scalars(self, values: dict[str, float], step: int) -> None:
        """Write values by name."""
        from torch.utils.tensorboard.summary import scalar

        self._add([scalar(name, value) for name, value in values.items()], step)

    def add_image(self, name: str, image_u8: np.ndarray, step: int) -> None:
        """Write a picture, uint8 [H, W, 3]."""
        from torch.utils.tensorboard.summary import image

        self._add([image(name, image_u8, dataformats="HWC")], step)

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._file.close()

    def _add(self, summaries: list[Any], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._write(*(Event(wall_time=time.time(), step=step, summary=summary) for summary in summaries))

    def _write(self, *events: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        left, whole = memoryview(records.getvalue()), self._file.tell()
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._file.seek(whole))
            raise

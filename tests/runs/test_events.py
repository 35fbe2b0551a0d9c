"""TensorBoard's event file on a full disk: an error of the caller, no thread's traceback, and no half record."""

import os

import numpy as np
import pytest

from fastmagn.runs.events import open_events

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_a_full_disk_is_an_error_and_leaves_whole_records(tmp_path, monkeypatch):
    events = open_events(tmp_path, 0)
    events.add_scalars({"loss": 2.0}, 0)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()

    class Full:
        """The file, whose disk has room for 100 more bytes."""

        def __init__(self, file) -> None:
            self.file, self.room = file, 100

        def __getattr__(self, name: str):
            return getattr(self.file, name)

        def write(self, content: memoryview) -> int:
            if self.room == 0:
                raise OSError(28, "No space left on device")
            written = self.file.write(content[: self.room])
            self.room -= written
            return written

    honest = events._file
    monkeypatch.setattr(events, "_file", Full(honest))
    with pytest.raises(OSError, match="No space left on device"):
        events.add_image("views", np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8), 0)
    assert path.read_bytes() == whole
    monkeypatch.setattr(events, "_file", honest)
    events.add_scalars({"loss": 1.0}, 1)
    events.close()
    shown = accumulator.EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in shown] == [(0, 2.0), (1, 1.0)]


def test_files_of_one_second_are_read_in_the_order_they_were_made(tmp_path, monkeypatch):
    monkeypatch.setattr("fastmagn.runs.events.time.time", lambda: 1.7e9)
    names = []
    for step in range(12):
        with open_events(tmp_path / "all", step)._file as file:
            names.append(os.path.basename(file.name))
    assert names == sorted(names)

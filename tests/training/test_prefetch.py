"""What is made ahead on a GPU; the streams are played by objects that note what is asked of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fastmagn.training import prefetch
from fastmagn.training.prefetch import made_ahead

CUDA = torch.device("cuda", 0)


class Stream:
    """A stream that notes which streams it has waited for."""

    def __init__(self, device: torch.device) -> None:
        self.waited_for: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waited_for.append(other)


@pytest.fixture
def streams(monkeypatch) -> list[Stream]:
    """Every stream that is created."""
    created: list[Stream] = []
    current = Stream(CUDA)

    def create(device: torch.device) -> Stream:
        created.append(Stream(device))
        return created[-1]

    @contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "Stream", create)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    prefetch._side_stream.cache_clear()
    yield created
    prefetch._side_stream.cache_clear()


def test_all_epochs_share_one_side_stream(streams):
    """Memory that is freed on one stream stays with it: with a new one in each epoch, the cache would grow."""
    for _ in range(4):
        assert list(made_ahead(iter(range(3)), lambda item: 10 * item, lambda made: [], CUDA)) == [0, 10, 20]
    assert len(streams) == 1
    assert len(streams[0].waited_for) == 4  # at each epoch's start, for what the step's stream has still to do


def test_the_next_item_is_made_before_the_step_has_this_one(streams):
    made = []

    def make(item: int) -> int:
        made.append(item)
        return item

    ahead = made_ahead(iter(range(3)), make, lambda item: [], CUDA)
    assert [(item, len(made)) for item in ahead] == [(0, 2), (1, 3), (2, 3)]


def test_on_a_cpu_nothing_is_made_ahead():
    made = []

    def make(item: int) -> int:
        made.append(item)
        return item

    ahead = made_ahead(iter(range(3)), make, lambda item: [], torch.device("cpu"))
    assert (next(ahead), made) == (0, [0])

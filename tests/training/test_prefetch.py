"""What is made ahead on a GPU; the streams are played by objects that note what is asked of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fastmagn.training import loop, prefetch
from fastmagn.training.prefetch import made_ahead
from fastmagn.training.run import train
from tests.helpers.small_runs import (
    STEPS_PER_EPOCH,
    assert_same_weights,
    rows,
    small_default,
    weights,
    without_times,
)

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


def test_all_runs_share_one_side_stream(streams):
    """Memory that is freed on one stream stays with it: with a new one each time, the cache would grow."""
    for _ in range(4):
        assert list(made_ahead(iter(range(3)), lambda item: 10 * item, lambda made: [], CUDA)) == [0, 10, 20]
    assert len(streams) == 1
    assert len(streams[0].waited_for) == 4  # at each start, for what the step's stream has still to do


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


def test_the_first_batch_of_an_epoch_is_made_before_the_epoch_before_ends(
    undisturbed_default, tmp_path, streams, monkeypatch
):
    """What is made ahead crosses the ends of epochs, never the end of the run, and changes no bit."""
    events = []

    def noted(name, function):
        def note(*arguments):
            events.append(name)
            return function(*arguments)

        return note

    monkeypatch.setattr(
        loop, "made_ahead", lambda source, make, tensors, _: made_ahead(source, make, lambda made: [], CUDA)
    )
    for name in ("make_pieces", "train_step", "finish_epoch"):
        monkeypatch.setattr(loop, name, noted(name, getattr(loop, name)))
    train(small_default(tmp_path / "run"))
    epoch = ["make_pieces", "train_step"] * STEPS_PER_EPOCH + ["finish_epoch"]
    shown, last = ["make_pieces", "make_pieces"], ["train_step", "finish_epoch"]
    assert events == [*shown, *epoch, *epoch[:-3], *last]
    assert without_times(rows(tmp_path / "run")) == without_times(rows(undisturbed_default))
    assert_same_weights(weights(tmp_path / "run"), weights(undisturbed_default))

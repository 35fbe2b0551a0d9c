"""Makes what the next step needs while the device works on this step."""

import functools
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import torch
from torch import Tensor

Given = TypeVar("Given")
Made = TypeVar("Made")


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all epochs: memory that was freed on one stream is not given to another without waiting."""
    return torch.cuda.Stream(device)


def made_ahead(
    source: Iterator[Given],
    make: Callable[[Given], Made],
    tensors: Callable[[Made], list[Tensor]],
    device: torch.device,
) -> Generator[Made, None, None]:
    """Yields `make(item)` for each item of `source`; on CUDA one item ahead, on a stream of its own.

    On a CPU nothing is made ahead, since it would compete with the step.

    Args:
        source: Read on the side stream too, so that its kernels overlap with the step.
        make: Launches kernels and does not wait for them.
        tensors: The tensors of a made item; their memory is kept until the step has used them.
        device: Where the step runs.
    """
    if device.type != "cuda":
        yield from map(make, source)
        return
    side = _side_stream(device)
    side.wait_stream(torch.cuda.current_stream(device))  # what the source holds may still be in flight

    def next_made() -> Made | None:
        with torch.cuda.stream(side):
            return next(map(make, source), None)

    following = next_made()
    while (made := following) is not None:
        step_stream = torch.cuda.current_stream(device)
        step_stream.wait_stream(side)  # before the next item is launched there: the step waits for its own item only
        for tensor in tensors(made):
            tensor.record_stream(step_stream)
        following = next_made()
        yield made

"""A copy of a run's state in the host's memory, which training cannot change while it is being written."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def on_host(state: Any) -> tuple[Any, Callable[[], None]]:
    """Copy nested dicts, lists and tuples of tensors to the host.

    Returns:
        The copy, and a function that waits until it is complete: copies from a CUDA device go to pinned memory, in the
        order of the device's work, and the caller does not wait for them.
    """
    devices = {tensor.device for tensor in tensors_in(state) if tensor.is_cuda}
    copied = _copied(state)
    events = [torch.cuda.current_stream(device).record_event() for device in devices]

    def wait() -> None:
        for event in events:
            event.synchronize()

    return copied, wait


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(inner)


@torch.no_grad()
def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="cpu", pin_memory=value.is_cuda).copy_(value, non_blocking=True)
    if isinstance(value, dict):
        made = copy.copy(value)  # of its own class, with its attributes: a state_dict has the versions of its modules
        made.update((key, _copied(inner)) for key, inner in value.items())
        return made
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value

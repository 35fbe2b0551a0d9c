"""Several processes under torchrun: who am I, which rows are mine, everybody's rows together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist


class World(NamedTuple):
    """This process's rank, 0..size - 1, and how many processes there are."""

    rank: int = 0
    size: int = 1

    def share(self, num_rows: int) -> slice:
        """This rank's rows of 0..num_rows - 1: contiguous, in the ranks' order, sizes differing by at most one."""
        bounds = [num_rows * rank // self.size for rank in range(self.size + 1)]
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the ranks' order, on every rank; any picklable object."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def world_size() -> int:
    """Processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join_world(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join torchrun's processes, yielding this one's place and its own device; without torchrun a world of one."""
    if world_size() == 1:
        yield World(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()

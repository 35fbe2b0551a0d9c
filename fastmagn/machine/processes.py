"""Several processes under torchrun: who am I, which rows are mine, what do the others have."""

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numba
import torch
import torch.distributed as dist
from torch import Tensor

from fastmagn.errors import InputError
from fastmagn.machine.console import console
from fastmagn.machine.torchrun import world_size

_MEETING_TIMEOUT_S = 600.0


class World(NamedTuple):
    """This process's rank, 0..size - 1, and how many processes there are. Its methods wait for all of them."""

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

    def max(self, number: int) -> int:
        """The largest of the ranks' numbers; only the hosts wait, not their devices."""
        if self.size == 1:
            return number
        largest = torch.tensor(number, dtype=torch.int64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of every rank's tensor, on every rank; the argument stays as it is."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with rank 0's, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def fresh_store(store: dist.Store, rank: int, size: int) -> dist.Store:
    """A part of torchrun's store that holds nothing from before a restart; waits for all processes.

    The store outlives its processes, and with it the addresses that they left there: a process that is started anew
    and reads one calls a port on which nobody listens. The restart count does not tell the attempts apart, as each host
    counts its own. So rank 0 draws a name for the attempt, each other process asks for it by a name of its own, which
    no earlier answer has, and says when it has it.

    Raises:
        TimeoutError: A process has not come within ten minutes.
    """
    own_name = uuid.uuid4().hex
    if rank > 0:
        store.set(f"meeting/asks/{rank}", own_name)
        attempt = store.get(f"meeting/answers/{own_name}").decode()
        store.set(f"meeting/{attempt}/{rank}", "came")
        return dist.PrefixStore(attempt, store)
    missing = set(range(1, size))
    deadline = time.monotonic() + _MEETING_TIMEOUT_S
    while missing:
        for other in missing:
            if store.check([f"meeting/asks/{other}"]):  # perhaps left by an earlier process: asked again until it came
                store.set(f"meeting/answers/{store.get(f'meeting/asks/{other}').decode()}", own_name)
        missing -= {other for other in missing if store.check([f"meeting/{own_name}/{other}"])}
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(missing)} of {size} have not come.")
        time.sleep(0.01)
    return dist.PrefixStore(own_name, store)


@contextmanager
def join_world(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join torchrun's processes, yielding this one's place and its own device; without torchrun a world of one.

    Ranks other than 0 print nothing, and the processes of a host share its cores.

    Raises:
        InputError: More processes on this host than CUDA devices.
    """
    if world_size() == 1:
        yield World(), device
        return
    local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if device.type == "cuda":
        if local_size > torch.cuda.device_count():
            raise InputError(
                f"torchrun --nproc_per_node: got {local_size}; expected at most {torch.cuda.device_count()}, the CUDA"
                " devices of this host."
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    num_threads = max(1, len(os.sched_getaffinity(0)) // local_size)
    numba.set_num_threads(num_threads)
    torch.set_num_threads(num_threads)  # after numba, whose OpenMP threads have just become torch's: one for each core
    # Tensors on the CPU go by gloo whatever the device: asking whether to stop must not wait for it.
    store, rank, size = next(dist.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=fresh_store(store, rank, size), rank=rank, world_size=size)
    world = World(dist.get_rank(), dist.get_world_size())
    console.quiet = world.rank > 0
    try:
        yield world, device
    finally:
        dist.destroy_process_group()

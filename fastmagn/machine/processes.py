"""The processes of torchrun: the rank of this one, its share of the rows, and values gathered from all."""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastmagn.errors import InputError, one_line
from fastmagn.machine.console import console
from fastmagn.machine.hardware import indexed
from fastmagn.machine.torchrun import world_size
from fastmagn_kernels.threads import cpu_share, omp_num_threads

T = TypeVar("T")

_MEETING_TIMEOUT_S = 600.0
_WORK_TIMEOUT = timedelta(days=7)  # PyTorch's half hour is less than making a large -C set takes


class World(NamedTuple):
    """The rank of this process, 0..size - 1, and the number of processes. Its methods wait for all processes.

    `group` is theirs for what the hosts exchange. It waits for a process that downloads, makes or measures something
    as long as that takes.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    def share(self, num_rows: int) -> slice:
        """The rows of this rank among 0..num_rows - 1: contiguous, in order of rank; sizes differ by at most one."""
        bounds = [num_rows * rank // self.size for rank in range(self.size + 1)]
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in order of rank, on every rank; any picklable object."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returns on this rank. If it fails on one, it fails on all: none waits in vain.

        Raises:
            InputError: It failed on another rank.
            Exception: It failed on this one, with this.
        """
        if self.size == 1:
            return work()
        done: list[T] = []
        failure: Exception | None = None
        try:
            done.append(work())
        except Exception as error:
            failure = error
        lines = self.gather(failure and one_line(failure, None))
        if failure is not None:
            raise failure
        if any(lines):
            raise InputError(next(line for line in lines if line))
        return done[0]

    def rank_0_first(self, work: Callable[[], T]) -> T:
        """What `work` returns on this rank. The others wait for rank 0, which fills caches and says so.

        Raises:
            InputError: It failed on another rank.
            Exception: It failed on this one, with this.
        """
        first = self.together(lambda: [work()] if self.rank == 0 else [])
        return self.together(lambda: first[0] if first else work())

    def max(self, number: int) -> int:
        """The largest number of all ranks. Only the hosts wait, not their devices."""
        if self.size == 1:
            return number
        largest = torch.tensor(number, dtype=torch.int64, device="cpu")
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.group)
        return int(largest)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the tensors of all ranks, on every rank; the argument is not changed."""
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
    """A part of torchrun's store that holds nothing from before a restart. Waits for all processes.

    The store outlives the processes, and so do the addresses that they left there: a restarted process that reads an
    old address connects to a port on which nothing listens. The restart count does not identify the attempt: each host
    counts its own. So rank 0 draws a name for the attempt. Each other process asks for it under a random name of its
    own, which no earlier answer can have, and confirms that it has it.

    Raises:
        TimeoutError: A process has not arrived within ten minutes.
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
            # An earlier process may have left this key, so each answer is repeated until it is confirmed.
            if store.check([f"meeting/asks/{other}"]):
                store.set(f"meeting/answers/{store.get(f'meeting/asks/{other}').decode()}", own_name)
        missing -= {other for other in missing if store.check([f"meeting/{own_name}/{other}"])}
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(missing)} of {size} have not arrived.")
        time.sleep(0.01)
    return dist.PrefixStore(own_name, store)


@contextmanager
def join_world(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes of torchrun; yields the place of this one and its device. Without torchrun: a world of one.

    Ranks other than 0 print nothing. The processes of a host share the CPUs that affinity and cgroup allow. PyTorch has
    no more threads than a process's share, or OMP_NUM_THREADS of them; afterwards it has as many as before.

    Raises:
        InputError: More processes on this host than CUDA devices.
    """
    if world_size() == 1:
        with _torch_threads(min(torch.get_num_threads(), cpu_share())):
            yield World(), indexed(device)
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
    # CPU tensors always use gloo: agreeing whether to stop must not wait for the device.
    store, rank, size = next(dist.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=fresh_store(store, rank, size), rank=rank, world_size=size)
    world = World(rank, size, dist.new_group(backend="gloo", timeout=_WORK_TIMEOUT))
    console.quiet = world.rank > 0
    try:
        # Not capped by NUMBA_NUM_THREADS: the bits of matrix products depend on PyTorch's number of threads.
        with _torch_threads(min(cpu_share(), omp_num_threads() or cpu_share())):
            yield world, device
    finally:
        dist.destroy_process_group()


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)

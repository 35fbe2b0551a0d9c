"""The threads that kernels run on: how many, and how they share work.

Kernels are compiled with `nogil` and run on Python threads, not in numba's parallel regions. Those use OpenMP, which
kills or hangs a process that was forked after it, and whose number of threads is PyTorch's too.
"""

import functools
import math
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from numba import config

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_TOPOLOGY = Path("/sys/devices/system/cpu")


def num_threads() -> int:
    """Return the number of threads for kernels in this process, 1 or more.

    It is the smallest of NUMBA_NUM_THREADS, OMP_NUM_THREADS, what torch.set_num_threads was given, and this process's
    share of the CPUs (`cpu_share`). A worker of a DataLoader has one thread.
    """
    data = sys.modules.get("torch.utils.data")
    if data is not None and data.get_worker_info() is not None:
        return 1
    threads = min(int(config.NUMBA_NUM_THREADS), cpu_share(), omp_num_threads() or math.inf)
    torch = sys.modules.get("torch")
    of_torch = torch.get_num_threads() if torch is not None else threads
    # By itself PyTorch takes one thread per core, where kernels take one per CPU; fewer means that somebody set it.
    is_set = of_torch < threads and of_torch < _count_cores(frozenset(os.sched_getaffinity(0)))
    return of_torch if is_set else threads


def cpu_share() -> int:
    """Return the CPUs that this process may use, divided by torchrun's processes on this host; 1 or more.

    The affinity and the cgroup's quota (a container's limit) decide.
    """
    cpus = min(len(os.sched_getaffinity(0)), _cgroup_quota(_CGROUPS, _OWN_CGROUPS))
    return max(1, int(cpus) // _local_world_size())


def omp_num_threads() -> int | None:
    """Return OMP_NUM_THREADS; None where it is not set, no number, or torchrun's own default of 1."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    number = int(first) if first.isdecimal() else 0
    return None if number == 0 or (number == 1 and _local_world_size() > 1) else number


def _local_world_size() -> int:
    size = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(size)) if size.isdecimal() else 1


@functools.cache
def _cgroup_quota(root: Path, own: Path) -> float:
    """Return the CPUs that this process's cgroup and those above it allow, rounded up; infinity without a limit.

    Args:
        root: Where cgroups are mounted.
        own: The file that names this process's cgroups: lines `number:controllers:/path`.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines() if line.count(":") >= 2]
    except OSError:
        lines = []
    cpus = math.inf
    for _, controllers, path in [["0", "", "/"], ["0", "cpu", "/"], *lines]:
        is_version_1 = "cpu" in controllers.split(",")
        top = root / "cpu" if is_version_1 else root
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_version_1 else ("cpu.max",)
        own_folder = top / path.lstrip("/")
        for folder in (own_folder, *own_folder.parents):
            cpus = min(cpus, _quota_in(folder, names))
    return cpus


def _quota_in(folder: Path, names: tuple[str, ...]) -> float:
    try:
        quota, period = " ".join((folder / name).read_text() for name in names).split()
        return math.ceil(int(quota) / int(period)) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # the file does not exist, or the quota is "max"
        return math.inf


@functools.cache
def _count_cores(cpus: frozenset[int]) -> int:
    """Return the number of physical cores of these CPUs; the CPUs of one core are hyper-threads."""

    def core(cpu: int) -> str:
        try:
            return (_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
        except OSError:
            return str(cpu)

    return len({core(cpu) for cpu in cpus})


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fastmagn")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of its parent's threads


def run_on_threads(work: Callable[[], None], threads: int) -> None:
    """Call `work()` on so many threads at once, this one among them; return when all have finished.

    A thread that has not started when this one has finished does not start any more: each call takes what is left of
    the work. Where no thread can be started, as at the interpreter's exit, this one does all of it.
    """
    changed, running = threading.Condition(), 0
    open_work = [work]  # emptied at the end: a helper that starts later does nothing, and keeps no memory until then
    errors: list[BaseException] = []

    def help_out() -> None:
        nonlocal running
        with changed:
            if not open_work:
                return
            own_work = open_work[0]
            running += 1
        try:
            own_work()
        except BaseException as error:
            errors.append(error)
        finally:
            with changed:
                running -= 1
                changed.notify()

    with suppress(RuntimeError):
        for _ in range(threads - 1):
            _pool().submit(help_out)
    try:
        work()
    finally:
        with changed:
            open_work.clear()
            changed.wait_for(lambda: running == 0)
    if errors:
        raise errors[0]


def over_chunks(work: Callable[[slice], None], num_rows: int, rows_per_chunk: int) -> None:
    """Call `work` on slices that cover 0..num_rows - 1, on `num_threads()` threads.

    Threads help only if `work` releases Python's lock, as kernels compiled with `nogil` do.
    """
    firsts = range(0, num_rows, rows_per_chunk)
    chunks = iter([slice(first, min(first + rows_per_chunk, num_rows)) for first in firsts])  # all threads take from it

    def work_off() -> None:
        try:
            for chunk in chunks:
                work(chunk)
        finally:  # after an error no thread begins another chunk
            for _ in chunks:
                pass

    run_on_threads(work_off, min(num_threads(), len(firsts)))

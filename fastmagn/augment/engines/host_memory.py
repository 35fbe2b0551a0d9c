"""Memory for views on the host, reused as soon as nothing refers to it.

A batch of views takes tens of MB. The C library returns blocks above 32 MB to the system when they are freed, and gets
them back as zeroed pages with a page fault each: at 224 pixels that took two thirds of the time of `make_views`.

`machine.memory` mends this for commands on a CPU, but not here: a library may not change how the program around it
allocates, and glibc maps what is larger than 64 MiB anew for every thread but the main one, whatever its thresholds.
"""

import math
import os
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

NUM_KEPT = 2  # free buffers: this step's and the last step's
_free: list[np.ndarray] = []
_lock = threading.RLock()  # reentrant: garbage collection may return a buffer while its thread holds the lock
# A process that is forked while another thread holds it would wait for ever.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def empty(shape: tuple[int, ...]) -> Tensor:
    """An uninitialised, contiguous float32 tensor on the host; its memory is kept for the next tensor of its size."""
    buffer = _take(math.prod(shape))
    lease = buffer[:]  # a separate object, which lives as long as any tensor uses this memory
    weakref.finalize(lease, _give_back, buffer).atexit = False
    return torch.from_numpy(lease).view(shape)


def _take(size: int) -> np.ndarray:
    with _lock:
        for i, buffer in enumerate(_free):
            if buffer.size == size:
                return _free.pop(i)
    return torch.empty(size, dtype=torch.float32, device="cpu").numpy()


def _give_back(buffer: np.ndarray) -> None:
    with _lock:
        _free.append(buffer)
        del _free[:-NUM_KEPT]

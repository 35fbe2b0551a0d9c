"""Memory for views on the host, used again once nothing holds it.

A batch of views is tens of MB. Above 32 MB the C library gives such memory back to the system each time, and it returns
as zeroed pages, with a fault for each: at 224 pixels that was two thirds of the time of `make_views`.
"""

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

NUM_KEPT = 2  # of free buffers: this step's and the last one's
_free: list[np.ndarray] = []
_lock = threading.RLock()  # a buffer may come back while its thread is in here, by garbage collection


def empty(shape: tuple[int, ...]) -> Tensor:
    """An uninitialised float32 tensor on the host, contiguous; its memory is kept for the next one of its size."""
    buffer = _take(math.prod(shape))
    lease = buffer[:]  # an object of its own: it lives as long as any tensor has this memory
    weakref.finalize(lease, _give_back, buffer).atexit = False
    return torch.from_numpy(lease).view(shape)


def _take(size: int) -> np.ndarray:
    with _lock:
        for i, buffer in enumerate(_free):
            if buffer.size == size:
                return _free.pop(i)
    return torch.empty(size, dtype=torch.float32).numpy()


def _give_back(buffer: np.ndarray) -> None:
    with _lock:
        _free.append(buffer)
        del _free[:-NUM_KEPT]

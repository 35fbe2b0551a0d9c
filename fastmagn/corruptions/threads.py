"""Work over a batch on several threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from numba import config

# Enough images that a chunk's start (some 50 us) does not show beside 5 us an image, few enough to share out evenly.
_CHUNK = 128


def over_chunks(work: Callable[[slice], None], num_images: int) -> None:
    """Call `work` on slices that cover 0..num_images - 1, on NUMBA_NUM_THREADS threads (by default, all cores).

    Gains only while `work` has Python's lock released, as kernels compiled with `nogil` and Pillow's codecs have.
    """
    chunks = [slice(first, min(first + _CHUNK, num_images)) for first in range(0, num_images, _CHUNK)]
    if len(chunks) == 1 or config.NUMBA_NUM_THREADS == 1:
        for chunk in chunks:
            work(chunk)
        return
    with ThreadPoolExecutor(config.NUMBA_NUM_THREADS) as pool:
        list(pool.map(work, chunks))

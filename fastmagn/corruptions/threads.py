"""Work over a batch on several threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from numba import config

# As many pixels as 128 images of 32 x 32 have: enough that a chunk's start (some 50 us) does not show beside 5 us for
# each of them, few enough to share out evenly.
_CHUNK_PIXELS = 128 * 32 * 32


def over_chunks(work: Callable[[slice], None], num_images: int, pixels_per_image: int) -> None:
    """Call `work` on slices that cover 0..num_images - 1, on NUMBA_NUM_THREADS threads (by default, all cores).

    Gains only while `work` has Python's lock released, as kernels compiled with `nogil` have.
    """
    step = max(1, _CHUNK_PIXELS // pixels_per_image)
    chunks = [slice(first, min(first + step, num_images)) for first in range(0, num_images, step)]
    if len(chunks) == 1 or config.NUMBA_NUM_THREADS == 1:
        for chunk in chunks:
            work(chunk)
        return
    with ThreadPoolExecutor(config.NUMBA_NUM_THREADS) as pool:
        list(pool.map(work, chunks))

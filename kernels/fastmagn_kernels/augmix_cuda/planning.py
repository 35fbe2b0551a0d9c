"""How many blocks, and of which memory, make the images of a batch.

Shape letters: V views, B batch, W chains, G groups, H W image.
"""

import functools
from typing import NamedTuple

BLOCK_IN_SHARED = (32, 8)  # a warp for a row of CIFAR's images
BLOCK_IN_SCRATCH = (32, 32)
SCRATCH_BYTES = 60 * 2**20
MAX_PIXELS = 2**23  # of an image: the sum of its luma is an int32
_SHARED_BYTES = 40 * 2**10  # for rows; a block has 48 KiB, of which the kernel's own arrays take 6 KiB
# 4 blocks of 256 threads, or one of 1,024, fit into a multiprocessor's registers (64 per thread; no loop over pixels
# spills), and 4 blocks into its shared memory. A batch of 512 on 132 multiprocessors is then one wave.
BLOCKS_PER_SM = 4
# A recipe needs 80 registers per thread. So there are fewer threads: 3 blocks of 256, or one of 768.
BLOCK_OF_RECIPE_IN_SCRATCH = (32, 24)
BLOCKS_OF_RECIPE_PER_SM = 3
_WANTED_BLOCKS_PER_SM = 3
SPARE_ROW = 1
FIRST_CHAIN_ROW = 2


class Launch(NamedTuple):
    """How a batch is launched.

    Args:
        blocks: Blocks of the grid.
        groups: Groups (G), among which the views of an image are shared.
        row_bytes: Bytes of a row.
        kept: How many chains' ends are kept in the memory of the view.
        shared_bytes: Bytes of shared memory for the rows of a block; 0 if they are in `scratch`.
        scratch_bytes: Bytes of `scratch`.
    """

    blocks: int
    groups: int
    row_bytes: int
    kept: int
    shared_bytes: int
    scratch_bytes: int

    @property
    def in_shared(self) -> bool:
        """Whether the rows are in shared memory."""
        return self.shared_bytes > 0


def launch_bounds(in_shared: bool, with_recipe: bool = False) -> tuple[tuple[int, int], int]:
    """Return the threads of a block, and for how many blocks a multiprocessor must have registers."""
    if in_shared:
        return BLOCK_IN_SHARED, BLOCKS_OF_RECIPE_PER_SM if with_recipe else BLOCKS_PER_SM
    return BLOCK_OF_RECIPE_IN_SCRATCH if with_recipe else BLOCK_IN_SCRATCH, 1


@functools.lru_cache(maxsize=64)
def plan_launch(
    batch: int,
    num_views: int,
    height: int,
    width: int,
    mixture_width: int,
    num_sms: int,
    value_bytes: int = 4,
    in_shared: bool | None = None,
) -> Launch:
    """Choose the launch of a batch on a device with `num_sms` multiprocessors, for views of `value_bytes` a value.

    By default the rows are in shared memory if they fit; `in_shared` decides it otherwise. A policy of images alone has
    one view and no chains.
    """
    row_bytes = 12 * -(-height * width // 4)
    rows_bytes = (FIRST_CHAIN_ROW + mixture_width) * row_bytes
    in_shared = rows_bytes <= _SHARED_BYTES if in_shared is None else in_shared
    groups = min(num_views, -(-_WANTED_BLOCKS_PER_SM * num_sms // batch))
    blocks = min(batch * groups, 2**31 - 1)
    if in_shared:
        return Launch(blocks, groups, row_bytes, 0, rows_bytes, 4)
    # Without a whole number of words, a view has no room for them.
    kept = min(value_bytes, max(0, mixture_width - 1)) if height * width % 4 == 0 else 0
    rows_bytes -= kept * row_bytes
    blocks = min(blocks, num_sms, max(1, SCRATCH_BYTES // rows_bytes))
    return Launch(blocks, groups, row_bytes, kept, 0, blocks * rows_bytes)

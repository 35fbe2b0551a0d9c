"""In which order a warp's threads execute blocks of instructions when they do not all go the same way.

Of all threads of a warp, those are next whose block comes first in an order in which a block follows all that lead to
it, and a loop is in one piece. So threads wait where ways meet and behind a loop until the others have come there, as
on the hardware, also if some of them leave the function on the way (Diamos et al., SIMD re-convergence at thread
frontiers, 2011).
"""

from collections.abc import Sequence


def execution_ranks(successors: Sequence[Sequence[int]]) -> list[int]:
    """Return each block's place in the order; block 0 is the entry. Blocks that nothing leads to come last.

    Args:
        successors: The blocks that may follow each block.
    """
    order = _ordered(0, set(range(len(successors))), successors)
    order += [block for block in range(len(successors)) if block not in set(order)]
    ranks = [0] * len(order)
    for rank, block in enumerate(order):
        ranks[block] = rank
    return ranks


def _ordered(entry: int, blocks: set[int], successors: Sequence[Sequence[int]]) -> list[int]:
    """The blocks that `entry` leads to, among `blocks`; of a loop, what leads back to `entry` does not count."""
    order = []
    for component in _components(entry, blocks, successors):
        if len(component) == 1:
            order += component
        else:
            inner = set(component)
            order += _ordered(component[-1], inner, successors)  # found first: the loop's entry
    return order


def _components(entry: int, blocks: set[int], successors: Sequence[Sequence[int]]) -> list[list[int]]:
    """Tarjan's strongly connected components without the edges to `entry`, each after those that lead to it."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    found: list[list[int]] = []
    open_blocks: list[int] = []
    still_open: set[int] = set()

    def begin(block: int) -> None:
        index[block] = low[block] = len(index)
        open_blocks.append(block)
        still_open.add(block)
        following = [other for other in successors[block] if other in blocks and other != entry]
        work.append((block, iter(following)))

    work: list[tuple[int, object]] = []
    begin(entry)
    while work:
        block, rest = work[-1]
        other = next(rest, None)
        if other is None:
            work.pop()
            if work:
                low[work[-1][0]] = min(low[work[-1][0]], low[block])
            if low[block] == index[block]:
                at = open_blocks.index(block)
                found.append(open_blocks[at:][::-1])
                still_open.difference_update(open_blocks[at:])
                del open_blocks[at:]
        elif other not in index:
            begin(other)
        elif other in still_open:
            low[block] = min(low[block], index[other])
    return found[::-1]

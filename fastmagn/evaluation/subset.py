"""Which test images an evaluation measures, where it measures fewer than all."""

from typing import Any, Literal, NamedTuple

import numpy as np

from fastmagn.data import DATASETS, ENCODED, OWN
from fastmagn.data.subset import BY_CLASS, even_subset
from fastmagn.registry import is_own
from fastmagn_kernels.random import rng

_ORDER_EPOCH = 2**32 - 4  # of rng.permutation, below those of data.subset


class Subset(NamedTuple):
    """How the measured images are chosen.

    Args:
        chosen: `first`: the first ones, for a set in random order such as CIFAR. `by class`: drawn at random and evenly
            over the classes, for a set that is sorted by class.
        seed: What draws `by class`, 0..2^64 - 1.
        is_shuffled: Measure the images `by class` in a random order, so that a batch holds many classes.
    """

    chosen: Literal["first", "by class"] = "first"
    seed: int = 0
    is_shuffled: bool = False

    def rows(self, labels: np.ndarray, num_images: int) -> slice | np.ndarray:
        """The rows of the measured images: the first ones as a slice, others as int64 [num_images].

        They ascend unless they are shuffled.

        Args:
            labels: int64 [N].
            num_images: 0..N; 0 means all.
        """
        if self.chosen == "first" or (num_images in (0, len(labels)) and not self.is_shuffled):
            return slice(0, num_images or len(labels))
        rows = even_subset(labels, num_images or len(labels), self.seed)
        return rows[rng.permutation(len(rows), self.seed, _ORDER_EPOCH)] if self.is_shuffled else rows

    def record(self, num_images: int, total: int) -> dict[str, Any]:
        """What results.json says: `chosen` (`all` if every image was measured), `of`, and `seed` of `by class`."""
        if num_images == total:
            return {"chosen": "all", "of": total}
        seed = {"seed": self.seed} if self.chosen == BY_CLASS else {}
        return {"chosen": self.chosen, "of": total, **seed}


FIRST = Subset()


def subset_of(data_name: str, seed: int) -> Subset:
    """How some of a data set's test images are chosen: those of a user are often sorted by class, others are not."""
    is_of_user = data_name in (*ENCODED, *OWN) or is_own(DATASETS, data_name)
    return Subset(BY_CLASS, seed) if is_of_user else FIRST

"""Which test images an evaluation measures, where it measures fewer than all."""

from typing import Any, Literal, NamedTuple

import numpy as np

from fastmagn.data.subset import BY_CLASS, even_subset


class Subset(NamedTuple):
    """How the measured images are chosen.

    Args:
        chosen: `first`: the first ones, for a set in random order such as CIFAR. `by class`: drawn at random and evenly
            over the classes, for a set that is sorted by class.
        seed: What draws `by class`, 0..2^64 - 1.
    """

    chosen: Literal["first", "by class"] = "first"
    seed: int = 0

    def rows(self, labels: np.ndarray, num_images: int) -> slice | np.ndarray:
        """The rows of the measured images: the first ones as a slice, others as int64 [num_images], ascending.

        Args:
            labels: int64 [N].
            num_images: 0..N; 0 means all.
        """
        if self.chosen == "first" or num_images in (0, len(labels)):
            return slice(0, num_images or len(labels))
        return even_subset(labels, num_images, self.seed)

    def record(self, num_images: int, total: int) -> dict[str, Any]:
        """What results.json says: `chosen` (`all` if every image was measured), `of`, and `seed` of `by class`."""
        if num_images == total:
            return {"chosen": "all", "of": total}
        seed = {"seed": self.seed} if self.chosen == BY_CLASS else {}
        return {"chosen": self.chosen, "of": total, **seed}


FIRST = Subset()


def subset_of(data_name: str, seed: int) -> Subset:
    """How some of a data set's test images are chosen: a folder's are sorted by class, others are in random order."""
    return Subset(BY_CLASS, seed) if data_name == "folder" else FIRST

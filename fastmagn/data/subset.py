"""Which images a smaller evaluation measures, where a set is sorted by class."""

from typing import Final

import numpy as np

from fastmagn.errors import as_integer, check
from fastmagn_kernels.random import rng

BY_CLASS: Final = "by class"  # how results and manifests name this subset
# Epochs of training count from 0 and never reach these, so a subset shares no draw with them.
_IMAGES_EPOCH, _CLASSES_EPOCH = 2**32 - 3, 2**32 - 2


def even_subset(labels: np.ndarray, num_images: int, seed: int) -> np.ndarray:
    """The rows of `num_images` images, drawn at random and evenly over the classes; a pure function.

    The numbers of images of two classes differ by at most one, unless the smaller class is used up. The seed draws the
    images of each class, and which classes have one image more. A larger subset of the same seed contains a smaller
    one.

    Args:
        labels: int64 [N], each 0 or more; the classes are those that occur.
        num_images: 1..N.
        seed: 0..2^64 - 1.

    Returns:
        int64 [num_images], rows of `labels`, ascending.

    Raises:
        InputError: `num_images` or `seed` is out of range.
    """
    total = len(labels)
    check(1 <= num_images <= total, "num_images", num_images, f"1..{total}, the images there are")
    seed = as_integer("seed", seed, range(2**64), "an integer in 0..2^64 - 1")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    drawn = rng.permutation(total, seed, _IMAGES_EPOCH)
    by_class = drawn[np.argsort(classes[drawn], kind="stable")]
    # How many images of its class are drawn before an image.
    turn = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    class_order = rng.permutation(len(counts), seed, _CLASSES_EPOCH)
    first = np.lexsort((class_order[classes[by_class]], turn))[:num_images]
    return np.sort(by_class[first]).astype(np.int64)

"""`python -m tests.augment.views_on_threads BACKEND`, with NUMBA_NUM_THREADS=3: views on one, two and three threads."""

import sys

import numba
import numpy as np
import torch

from fastmagn.augment.views import make_views
from tests.helpers.views import as_tensor, params_for


def main(backend: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (97, 32, 32, 3), dtype=np.uint8)
    made = []
    for num_threads in (1, 2, 3):
        numba.set_num_threads(num_threads)
        made.append(make_views(as_tensor(images), params_for(images), backend))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    print(f"equal on 1 to {num_threads} threads")


if __name__ == "__main__":
    main(*sys.argv[1:])

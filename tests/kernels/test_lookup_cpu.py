"""The CPU engine's table look-up: every length, and both of its ways."""

import numpy as np
import pytest

from fastmagn_kernels.augmix_cpu.lookup import look_up, look_up_vectors
from tests.helpers.processes import run

PLAIN = """
import numpy as np
from fastmagn_kernels.augmix_cpu.lookup import look_up, look_up_vectors
rng = np.random.default_rng(0)
source, table = rng.integers(0, 256, 300, dtype=np.uint8), rng.permutation(256).astype(np.uint8)
target = np.full(300, 7, np.uint8)
assert look_up_vectors(source, table, target) == 0
assert (target == 7).all()
look_up(source, table, target)
assert (target == table[source]).all()
"""


def test_look_up_of_every_length():
    rng = np.random.default_rng(0)
    for length in [*range(1, 200), 1024, 50_176]:
        source = rng.integers(0, 256, length + 1, dtype=np.uint8)[1:]  # at an odd address
        table = rng.permutation(256).astype(np.uint8)
        target = np.full(length + 3, 173, np.uint8)
        look_up(source, table, target[1:-2])
        np.testing.assert_array_equal(target[1:-2], table[source])
        assert target[0] == target[-1] == target[-2] == 173  # nothing beyond its ends


def test_look_up_maps_every_value():
    values = np.arange(256, dtype=np.uint8)
    table, target = values[::-1].copy(), np.empty(256, np.uint8)
    look_up(values, table, target)
    np.testing.assert_array_equal(target, table)


def test_vectors_are_whole():
    source, target = np.zeros(130, np.uint8), np.full(130, 7, np.uint8)
    done = look_up_vectors(source, np.full(256, 9, np.uint8), target)
    assert done in (0, 128)
    assert (target[:done] == 9).all()
    assert (target[done:] == 7).all()


@pytest.mark.process
def test_look_up_without_the_instruction(tmp_path):
    run(["-c", PLAIN], tmp_path, NUMBA_CPU_NAME="generic")

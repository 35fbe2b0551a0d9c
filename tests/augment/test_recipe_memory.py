"""What making views with a policy, erased areas and noise patches takes of memory beside them."""

import sys

import pytest

from tests.helpers.processes import run

CODE = """
import sys
import numpy as np, torch
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.views import make_views
from fastmagn.config.schema import AugmentConfig

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def peak_beside_the_views(batch, side):
    images = torch.zeros((batch, side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    spec, size = ViewSpec(num_augmix_views=0, num_noise_views=1), (side, side)
    params = sample_view_params(0, 0, np.arange(batch), spec, augment, size)
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM starts anew
    before = status("VmRSS")
    views = make_views(images, params, "numba")
    return status("VmHWM") - before - 4 * views.numel()

augment = AugmentConfig(policy="trivialaugment", erase_probability=1.0, erase_fill="noise", **{sys.argv[1]: 5.0})
peak_beside_the_views(2, 8)  # compiles
print(*(peak_beside_the_views(batch, side) for batch, side in ((512, 32), (32, 224), (1, 1536))))
"""


FLOATS = """
import torch
from fastmagn import TrivialAugment

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

augment = TrivialAugment(seed=0)
augment(torch.zeros(2, 3, 8, 8))  # compiles
images = torch.zeros(256, 3, 224, 224)
open("/proc/self/clear_refs", "w").write("5")  # VmHWM starts anew
before = status("VmRSS")
changed = augment(images)
print(status("VmHWM") - before - 4 * changed.numel())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("noise", ["patch_l2", "patch_l05"])
def test_a_thread_takes_little_memory_beside_the_views(tmp_path, noise):
    """A pass over the whole batch would take the views once more: 24 MiB, 37 MiB and 54 MiB."""
    small, large, huge = map(int, run(["-c", CODE, noise], tmp_path).stdout.split())
    assert small < 6 * 2**20
    assert large < 6 * 2**20
    assert huge < 64 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.slow
@pytest.mark.process
def test_a_policy_of_floats_takes_less_than_64_mib_beside_its_result(tmp_path):
    """The levels of the whole batch, in and out, would be 74 MiB."""
    assert int(run(["-c", FLOATS], tmp_path).stdout) < 64 * 2**20

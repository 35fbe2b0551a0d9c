"""A network without kinks, for comparing whole trainings: rounding stays rounding.

Behind a ReLU, and more so where batch normalisation puts whole flat regions of an image at zero, a difference of 1e-7
flips units: two trainings that differ by rounding alone are 1e-3 apart after 20 steps. Run as a script, it is
`python -m fastmagn.train` that knows this network by the name `smooth`.
"""

import sys

from torch import nn

from fastmagn import models
from fastmagn.machine.command import run_command
from fastmagn.train import main

NAME, WHERE = "smooth", "tests.helpers.smooth_network:smooth_network"


def smooth_network(num_classes: int) -> nn.Module:
    """Two convolutions with batch normalisation and GELU, global average, linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.GELU(),
        nn.Conv2d(16, 32, 3, stride=2, bias=False),
        nn.BatchNorm2d(32),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    )


if __name__ == "__main__":
    models.MODELS[NAME] = WHERE
    sys.argv[0] = "fastmagn.train"
    run_command(main)

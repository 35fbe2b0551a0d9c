"""python -m benchmarks.gpu.views: make a training step's views a few times, for a profiler or a sanitizer to watch.

The same views are made by the CPU engine, and must be equal to the bit.
"""

import argparse

import numpy as np
import torch

from benchmarks.measure import console
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.views import choose_engine, make_views
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.schema import AugmentConfig
from fastmagn.errors import InputError
from fastmagn.machine.command import run_command

PAPER = AugmentConfig(aug_severity=10, random_aug_severity=True, horizontal_flip=True, color_jitter=0.25)
STEP_VIEWS = ViewSpec(num_augmix_views=2, num_noise_views=1)


def main(arguments: list[str]) -> int:
    """Make the views, compare them, and print one line."""
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    shape = (options.batch_size, 3, options.size, options.size)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    params = sample_view_params(0, 0, torch.arange(options.batch_size), STEP_VIEWS, PAPER, shape[2:])
    for _ in range(options.calls):
        made = make_views(images.to(device), params)
    if not torch.equal(made.cpu(), make_views(images, params)):
        raise InputError(f"device: the views of {device} differ from the CPU engine's; expected the same bits.")
    engine = choose_engine("auto", device)
    console.print(f"{len(made)} views of {options.size} x {options.size} px by {engine}: equal to the CPU engine's")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OwnOptions("python -m benchmarks.gpu.views", __doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="device of the batch (default: cuda)")
    parser.add_argument("--size", type=int, default=32, help="side of the images, px (default: 32)")
    parser.add_argument("--batch_size", type=int, default=512, help="images (default: 512)")
    parser.add_argument("--calls", type=int, default=4, help="how often the views are made (default: 4)")
    return parser


if __name__ == "__main__":
    run_command(main)

"""python -m benchmarks.policy_pictures: a picture of each operation of the policies at five strengths.

python -m benchmarks.policy_pictures --out docs/images/policy_operations.png [--data_dir DIR]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.corrupt import load_test_images
from fastmagn.augment.params import ViewSpec, sample_view_params
from fastmagn.augment.policies.definitions import FACTORS, OPERATIONS, Choice, TrivialAugmentPolicy
from fastmagn.augment.policies.images import apply_policy
from fastmagn.augment.policies.own import OwnPolicy
from fastmagn.augment.policies.table import Policy
from fastmagn.config.command_line import OwnOptions
from fastmagn.config.schema import AugmentConfig
from fastmagn.machine.command import run_command

STRENGTHS = 5
_SIZE_PX = 224


def main(arguments: list[str]) -> int:
    """Write the picture."""
    options = _parse(arguments)
    image = load_test_images(options.data_dir, 1, _SIZE_PX)[0]
    names = [name for name in OPERATIONS if name != "identity"]
    figure = Figure(figsize=(1.5 * STRENGTHS + 1, 1.45 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), STRENGTHS)
    for row, name in zip(axes, names, strict=True):
        for axis, value in zip(row, values_of(name), strict=False):
            axis.imshow(changed(image, name, value), interpolation="nearest")
            axis.set_title(f"{name} {value:.4g}" if OPERATIONS[name] != "none" else name, fontsize=7)
        for axis in row:
            axis.set_axis_off()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=80)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = OwnOptions("python -m benchmarks.policy_pictures", __doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--data_dir", type=Path, help="folder that holds cifar-10-batches-py (default: use digits)")
    return parser.parse_args(arguments)


def values_of(name: str) -> list[float]:
    """Return five values of an operation from TrivialAugment's wide space, rising; one if it takes none."""
    ((step,),) = TrivialAugmentPolicy(STRENGTHS).sub_policies(_SIZE_PX, _SIZE_PX)
    values = next((choice.values for choice in step if choice.operation == name), (0.0,))
    if name in FACTORS:
        return sorted(set(values))[::2]
    return [value for value in dict.fromkeys(values) if value >= 0]


def changed(image: np.ndarray, name: str, value: float) -> np.ndarray:
    """Return an image uint8 [H, W, 3] after one operation."""
    policy = Policy(OwnPolicy((((Choice(name, (value,)),),),)), bilinear=True)
    spec = ViewSpec(num_augmix_views=0, num_noise_views=0)
    params = sample_view_params(0, 0, np.arange(1), spec, AugmentConfig(), image.shape[:2])
    made = apply_policy(torch.from_numpy(image)[None].permute(0, 3, 1, 2), params, policy, "auto")
    return made[0].permute(1, 2, 0).numpy()


if __name__ == "__main__":
    run_command(main)

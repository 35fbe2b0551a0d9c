"""Training on Gaussian noise that differs in one part, on the held-out images of benchmarks/small_networks.py.

    python -m benchmarks.equal_time --out DIR --budget_s 90 --seeds 0 1 --jobs 2 \\
        --import benchmarks/training_parts.py --config configs/fast/cifar10_gaussian_noise_small_cpu.yaml \\
        --data.name cifar10_held_out --data.dir DATA --eval.num_images 0 --eval.corruption_set c19 \\
        --run drawn_flips "--method gaussian_noise" \\
        --run alternating_flips "--method alternating_flips --augment.horizontal_flip false"

This is code for `--import`: it adds the methods by name, and what small_networks.py adds. Random streams:

    STREAM, block 0     index, epoch 0: whether the image is mirrored in even epochs or in odd ones
    STREAM, block 1     whether the image has noise, and its standard deviation
    STREAM + 1          the noise

Shape letters: B batch, C H W image.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

import benchmarks.small_networks  # noqa: F401
from fastmagn.extend import add_method
from fastmagn.methods.context import StepContext, on_device
from fastmagn.methods.gaussian_noise import GAUSSIAN_NOISE
from fastmagn.methods.method import Method
from fastmagn.methods.standard import standard_loss

STREAM = 128
SMALL_PX = 24
LARGEST_SD = 0.2


def alternate_flips(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Mirror an image [C, H, W] of the batch in every second epoch; half of the images are in the first.

    Source: K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.
    """
    in_even_epochs = dataclasses.replace(context, epoch=0).words(0, STREAM)[:, 0] % 2 == 0
    flipped = on_device(in_even_epochs == (context.epoch % 2 == 0), images.device)
    return torch.where(flipped[:, None, None, None], images.flip(3), images), labels


def grow(images: Tensor, labels: Tensor, context: StepContext) -> tuple[Tensor, Tensor]:
    """Images of 24 px in the first half of the epochs; then noise like that of `gaussian_noise`, in [0, 1]."""
    if context.epoch < context.config.train.epochs // 2:
        images = F.interpolate(images, size=(SMALL_PX, SMALL_PX), mode="bilinear", antialias=True)
    words = context.words(1, STREAM)
    sds = (words[:, 0] % 2) * (LARGEST_SD * words[:, 1] / 2**32)
    noise = context.normals_like(images, STREAM + 1)
    sds_by_image = on_device(sds, images.device).to(images.dtype)[:, None, None, None]
    return torch.addcmul(images, noise, sds_by_image).clamp_(0, 1), labels


add_method("alternating_flips", dataclasses.replace(GAUSSIAN_NOISE, title="Alternating flips", prepare=alternate_flips))
add_method("growing_images", Method(title="Growing images", loss=standard_loss, prepare=grow))

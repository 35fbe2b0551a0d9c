"""A data set, a network, a method and a corruption of your own, for every command of fastmagn:

    python -m fastmagn.train --import examples/own_code.py --data.name stripes --model.name two_layers --method smooth \
        --eval.corruption_set c15+smudge --run_dir runs/own
    python -m fastmagn.evaluate --run runs/own --import examples/own_code.py
    python -m fastmagn.report runs/own --import examples/own_code.py --out report
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fastmagn.config.schema import LossConfig
from fastmagn.data.image_set import ImageSet
from fastmagn.extend import add_corruption, add_dataset, add_method, add_model, image_set
from fastmagn.methods.method import LogitViews, LossParts, Method
from fastmagn.methods.standard import standard_loss


def stripes(folder: Path, download: bool) -> ImageSet:
    """Rows, columns and checks of random widths, grey 32x32 px, in noise. Nothing is read from `folder`."""
    rng = np.random.default_rng(0)
    labels = np.arange(1536) % 3
    row, column = np.mgrid[:32, :32]
    images_u8 = np.empty((len(labels), 32, 32), np.uint8)
    for image, label in zip(images_u8, labels, strict=True):
        width, phase = rng.integers(2, 6), rng.integers(0, 12)
        bands = [(row + phase) // width % 2, (column + phase) // width % 2]
        pattern = bands[label] if label < 2 else bands[0] ^ bands[1]
        image[:] = np.clip(80 + 90 * pattern + rng.normal(0, 30, (32, 32)), 0, 255)
    return image_set(
        class_names=("rows", "columns", "checks"),
        train=(images_u8[:1024], labels[:1024]),
        test=(images_u8[1024:], labels[1024:]),
    )


def two_layers(num_classes: int) -> nn.Module:
    """Two convolutions and the mean over the image. The network is given normalised images, float [B, 3, H, W]."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, num_classes)),
    )


def smooth_loss(logits: LogitViews, targets: Tensor, weights: LossConfig) -> tuple[Tensor, LossParts]:
    """Cross-entropy + consistency_weight * the squared distance of clean and noisy probabilities."""
    loss, parts = standard_loss(logits, targets, weights)
    clean = logits.clean.softmax(dim=1)
    distances = [(clean - noisy.softmax(dim=1)).square().sum(dim=1).mean() for noisy in logits.noisy]
    distance = sum(distances[1:], distances[0]) / len(distances)
    return loss + weights.consistency_weight * distance, parts | {"distance": distance}


def smudge(images_u8: NDArray[np.uint8], severity: int, seed: int, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A dark disc at a random place, the larger the more severe."""
    height, width = images_u8.shape[1:3]
    row, column = np.mgrid[:height, :width]
    for image, index in zip(images_u8, indices, strict=True):
        place = np.random.default_rng((seed, severity, int(index))).random(2)  # of this image alone
        distance = np.hypot(row - place[0] * height, column - place[1] * width)
        image[distance < severity * min(height, width) / 12] //= 3
    return images_u8


add_dataset("stripes", stripes)
add_model("two_layers", two_layers)
add_method("smooth", Method(title="Smooth", loss=smooth_loss, uses_noise=True))
add_corruption("smudge", smudge)

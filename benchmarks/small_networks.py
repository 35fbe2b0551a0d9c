"""Small networks that differ in one part, and CIFAR-10 with held-out training images in place of its test images.

    python -m benchmarks.equal_time --out DIR --budget_s 90 --seeds 0 1 --jobs 2 \\
        --import benchmarks/small_networks.py --config configs/fast/cifar10_gaussian_noise_small_cpu.yaml \\
        --data.name cifar10_held_out --data.dir DATA --eval.num_images 0 --eval.corruption_set c19 \\
        --run resnet_small "--model.name resnet_small" --run gelu "--model.name wide_gelu"

This is code for `--import`: it adds the networks and the data set by name. `resnet_small_wide` has its second block at
8 px, where `resnet_small` has it at 16 px. The networks `wide_PART` are `resnet_small_wide` with another part.
fastmagn's own `resnet_small_deep` is `resnet_small_wide` with a further block.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fastmagn.data import ImageSet, load_images
from fastmagn.extend import add_dataset, add_model, image_set
from fastmagn.models.resnet import SmallResNet

WIDE = (32, 64, 64, 128)
NUM_TRAIN, NUM_HELD_OUT = 45_000, 2_500
WHITENED_IMAGES = 2_000
_DATA_DIR: list[Path] = []  # where the images of this run are, for the stem that is made from them


def held_out(folder: Path, download: bool) -> ImageSet:
    """CIFAR-10 whose test images are 2,500 of its training images, drawn at random; 45,000 others are for training."""
    _DATA_DIR[:] = [folder]
    cifar10 = load_images("cifar10", folder, download)
    order = np.random.default_rng(0).permutation(len(cifar10.train_images_u8))
    parts = order[:NUM_TRAIN], order[NUM_TRAIN : NUM_TRAIN + NUM_HELD_OUT]
    train, test = ((cifar10.train_images_u8[part], cifar10.train_labels[part]) for part in parts)
    return image_set(class_names=cifar10.class_names, train=train, test=test)


def wide(num_classes: int) -> nn.Module:
    """Widths 32, 64, 64, 128 at 16, 8, 8 and 4 pixels."""
    return SmallResNet(num_classes, WIDE)


def gelu(num_classes: int) -> nn.Module:
    """GELU for every ReLU."""
    network = SmallResNet(num_classes, WIDE)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.GELU())
    return network


class MaxPooled(SmallResNet):
    """The maximum over the last maps in place of their mean."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.amax(self.blocks(self.stem(images)), dim=(2, 3)))


def max_pooled(num_classes: int) -> nn.Module:
    """A global maximum in place of the average."""
    return MaxPooled(num_classes, WIDE)


def pooled_stem(num_classes: int) -> nn.Module:
    """A stem of 16 filters at 32 px and max-pooling to 16 px, where the others have a stride of 2."""
    network = SmallResNet(num_classes, (16, *WIDE[1:]))
    convolution = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    network.stem = nn.Sequential(convolution, nn.MaxPool2d(2), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
    return network


def whitened_stem(num_classes: int) -> nn.Module:
    """A fixed stem: the 16 largest principal components of 4 x 4 px, each with both signs, scaled.

    Source: K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, whose stem is of 2 x 2 px with stride 1.
    """
    network = SmallResNet(num_classes, WIDE)
    convolution = nn.Conv2d(3, WIDE[0], kernel_size=4, stride=2, padding=1, bias=False)
    with torch.no_grad():
        components = principal_components(4, WIDE[0] // 2)
        convolution.weight.copy_(torch.cat([components, -components]))
    convolution.weight.requires_grad_(False)
    network.stem = nn.Sequential(convolution, nn.ReLU(inplace=True))
    return network


def principal_components(side_px: int, number: int) -> Tensor:
    """Filters that give normalised training images maps of variance 0.5 to 1, float32 [number, 3, side_px, side_px]."""
    assert _DATA_DIR, "the data set is loaded before the network is built"
    images_u8 = load_images("cifar10", _DATA_DIR[0]).train_images_u8[:WHITENED_IMAGES]
    images = torch.from_numpy(np.asarray(images_u8)).permute(0, 3, 1, 2).double() / 255
    images = (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)
    patches = images.unfold(2, side_px, 2).unfold(3, side_px, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * side_px**2)
    variances, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    scaled = vectors[:, -number:] / (variances[-number:] + 1e-2).sqrt()
    return scaled.T.flip(0).float().reshape(number, 3, side_px, side_px)


PARTS: dict[str, Callable[[int], nn.Module]] = {
    "gelu": gelu,
    "max": max_pooled,
    "pooled_stem": pooled_stem,
    "whitened_stem": whitened_stem,
}

add_dataset("cifar10_held_out", held_out)
add_model("resnet_small_wide", wide)
for _name, _build in PARTS.items():
    add_model(f"wide_{_name}", _build)

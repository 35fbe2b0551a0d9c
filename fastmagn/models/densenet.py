"""Densely connected networks for 32x32 images."""

from torch import nn
from torchvision.models.densenet import DenseNet


def densenet121(num_classes: int) -> nn.Module:
    """DenseNet-121 for 32x32 images with growth 32 (7.0 M parameters)."""
    return _densenet121(num_classes, growth=32)


def densenet121_k12(num_classes: int) -> nn.Module:
    """DenseNet-121 for 32x32 images with growth 12 (1.0 M parameters)."""
    return _densenet121(num_classes, growth=12)


def _densenet121(num_classes: int, growth: int) -> nn.Module:
    """torchvision's DenseNet of 6, 12, 24 and 16 layers, with a 3x3 stem of stride 1 and without max-pool.

    The stem outputs 2 * growth maps, transitions halve the number of maps (compression 0.5), and there is no dropout.
    For 32x32 images the four blocks work at 32, 16, 8 and 4 pixels.

    Source: G. Huang et al., "Densely connected convolutional networks", CVPR 2017; the stem is the CIFAR practice.
    """
    num_stem_maps = 2 * growth
    network = DenseNet(growth, (6, 12, 24, 16), num_stem_maps, num_classes=num_classes)
    network.features.conv0 = nn.Conv2d(3, num_stem_maps, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.features.conv0.weight)  # as torchvision initialises the other layers
    network.features.pool0 = nn.Identity()
    return network

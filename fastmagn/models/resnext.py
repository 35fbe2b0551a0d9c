"""ResNeXt-29 for 32x32 images.

In a name such as 32x4d the first number is the cardinality (the groups of a 3x3 convolution) and the second the width
(the maps of each group in the first stage). What AugMix calls "ResNeXt-29 (32x4)" has, in its code, cardinality 4 and
width 32: it is 4x32d here.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models.resnet import Bottleneck

from fastmagn.models.he_normal import he_normal


def resnext29_32x4d(num_classes: int) -> nn.Module:
    """ResNeXt-29 for 32x32 images, cardinality 32, width 4 (4.8 M parameters)."""
    return resnext29(num_classes, cardinality=32, width=4)


def resnext29_4x32d(num_classes: int) -> nn.Module:
    """ResNeXt-29 for 32x32 images, cardinality 4, width 32 (6.8 M parameters), which AugMix calls 32x4."""
    return resnext29(num_classes, cardinality=4, width=32)


def resnext29(num_classes: int, cardinality: int, width: int) -> nn.Module:
    """A 3x3 stem, then three stages of three of torchvision's bottleneck blocks each, at 32, 16 and 8 pixels.

    Source: S. Xie et al., "Aggregated residual transformations for deep neural networks", CVPR 2017, section 5.3.
    """
    in_width = 64
    layers = OrderedDict[str, nn.Module](
        stem=nn.Conv2d(3, in_width, kernel_size=3, padding=1, bias=False),
        bn=nn.BatchNorm2d(in_width),
        relu=nn.ReLU(inplace=True),
    )
    for i, planes in enumerate((64, 128, 256)):
        stride, out_width = (1 if i == 0 else 2), planes * Bottleneck.expansion
        shortcut = nn.Sequential(
            nn.Conv2d(in_width, out_width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(out_width)
        )
        blocks = [Bottleneck(in_width, planes, stride, shortcut, groups=cardinality, base_width=width)]
        blocks += [Bottleneck(out_width, planes, groups=cardinality, base_width=width) for _ in range(2)]
        layers[f"stage{i + 1}"] = nn.Sequential(*blocks)
        in_width = out_width
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(in_width, num_classes)}
    network = nn.Sequential(layers)
    he_normal(network)
    return network

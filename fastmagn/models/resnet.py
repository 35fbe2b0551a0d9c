"""Residual networks for 32x32 images, and ResNet-50 for photographs."""

import torch
from torch import Tensor, nn

from fastmagn.models.he_normal import he_normal


def resnet18(num_classes: int) -> nn.Module:
    """ResNet-18 for 32x32 images: torchvision's, with a 3x3 stem of stride 1 and without max-pool (11.2 M parameters).

    Source: K. He et al., "Deep residual learning for image recognition", CVPR 2016; the stem is the CIFAR practice.
    """
    from torchvision.models.resnet import BasicBlock, ResNet  # here: resnet_small must not wait a second for it

    network = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


def resnet50(num_classes: int) -> nn.Module:
    """ResNet-50 for photographs of about 224x224 px: torchvision's, unchanged (25.6 M parameters with 1000 classes).

    The stem divides the size by 4; the stages work at 56, 28, 14 and 7 pixels (8, 4, 2 and 1 for images of 32x32).

    Source: K. He et al., "Deep residual learning for image recognition", CVPR 2016; torchvision strides in the 3x3
    convolutions of the bottleneck blocks.
    """
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [3, 4, 6, 3], num_classes=num_classes)


class SmallResNet(nn.Module):
    """A stem of stride 2, basic residual blocks of growing width, a global average and a linear layer."""

    def __init__(self, num_classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(*map(SmallBlock, widths, widths[1:]))
        self.head = nn.Linear(widths[-1], num_classes)
        he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.mean(self.blocks(self.stem(images)), dim=(2, 3)))


def resnet_small(num_classes: int) -> nn.Module:
    """A residual network that two CPU cores train in minutes: widths 32, 32, 64, 128 at 16, 16, 8 and 4 pixels."""
    return SmallResNet(num_classes, widths=(32, 32, 64, 128))


def resnet_small_deep(num_classes: int) -> nn.Module:
    """More accurate than `resnet_small` in equal time: widths 32, 64, 64, 128, 128 at 16, 8, 8, 4 and 4 pixels."""
    return SmallResNet(num_classes, widths=(32, 64, 64, 128, 128))


class SmallBlock(nn.Module):
    """torchvision's BasicBlock, with its names of weights: relu(x + bn(conv(relu(bn(conv(x)))))), with 3x3 filters.

    If the width changes, the first convolution has stride 2, and bn(conv(x)), 1x1 of stride 2, replaces the first x.

    Args:
        in_width: Number of input maps.
        out_width: Number of output maps.
    """

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        stride, shortcut = 1, None
        if in_width != out_width:
            stride = 2
            narrowed = nn.Conv2d(in_width, out_width, kernel_size=1, stride=stride, bias=False)
            shortcut = nn.Sequential(narrowed, nn.BatchNorm2d(out_width))
        self.conv1 = nn.Conv2d(in_width, out_width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_width, out_width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_width)
        self.downsample = shortcut  # after the others, as torchvision has it: the order of the weights in files

    def forward(self, maps: Tensor) -> Tensor:
        before = maps if self.downsample is None else self.downsample(maps)
        maps = self.relu(self.bn1(self.conv1(maps)))
        return self.relu(self.bn2(self.conv2(maps)).add_(before))

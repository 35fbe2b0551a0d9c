"""Wide residual networks for 32x32 images."""

from collections import OrderedDict

from torch import Tensor, nn

from fastmagn.models.he_normal import he_normal


def wideresnet28_10(num_classes: int) -> nn.Module:
    """WideResNet-28-10 for 32x32 images (36.5 M parameters)."""
    return _wide_resnet(num_classes, depth=28, widening=10)


def wideresnet28_4(num_classes: int) -> nn.Module:
    """WideResNet-28-4 for 32x32 images (5.9 M parameters)."""
    return _wide_resnet(num_classes, depth=28, widening=4)


def wideresnet40_2(num_classes: int) -> nn.Module:
    """WideResNet-40-2 for 32x32 images, AugMix's main network (2.2 M parameters)."""
    return _wide_resnet(num_classes, depth=40, widening=2)


class PreActivationBlock(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))), both convolutions 3x3.

    If the width changes, a 1x1 convolution of relu(bn(x)) replaces the first x.

    Args:
        in_width: Number of input feature maps.
        out_width: Number of output feature maps.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, out_width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, kernel_size=3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if in_width != out_width:
            self.shortcut = nn.Conv2d(in_width, out_width, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(activated)
        return kept + self.conv2(self.relu(self.bn2(self.conv1(activated))))


def _wide_resnet(num_classes: int, depth: int, widening: int) -> nn.Module:
    """Three stages of (depth - 4) / 6 blocks, 16, 32, 64 times `widening` maps wide, at 32, 16 and 8 pixels.

    Source: S. Zagoruyko and N. Komodakis, "Wide residual networks", BMVC 2016, table 1 with B(3, 3); without dropout,
    as in AugMix.
    """
    widths = (16, 16 * widening, 32 * widening, 64 * widening)
    layers = OrderedDict[str, nn.Module](stem=nn.Conv2d(3, widths[0], kernel_size=3, padding=1, bias=False))
    for i, stride in enumerate((1, 2, 2)):
        blocks = [PreActivationBlock(widths[i], widths[i + 1], stride)]
        blocks += [PreActivationBlock(widths[i + 1], widths[i + 1], stride=1) for _ in range((depth - 4) // 6 - 1)]
        layers[f"stage{i + 1}"] = nn.Sequential(*blocks)
    layers |= {"bn": nn.BatchNorm2d(widths[-1]), "relu": nn.ReLU(inplace=True)}
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(widths[-1], num_classes)}
    network = nn.Sequential(layers)
    he_normal(network)
    return network

"""Networks for CIFAR as widely used repositories lay them out: the same names, order of layers and function.

Written anew from the papers and from the names that published checkpoints have; no dropout, no initialisation.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(in_width: int, out_width: int, kernel: int, stride: int = 1, **options) -> nn.Conv2d:
    return nn.Conv2d(in_width, out_width, kernel, stride, padding=kernel // 2, bias=False, **options)


class AugmixWideBlock(nn.Module):
    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(in_width), conv(in_width, out_width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(out_width), conv(out_width, out_width, 3)
        self.conv_shortcut = None if in_width == out_width else conv(in_width, out_width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.bn1(x))
        second = self.conv2(F.relu(self.bn2(self.conv1(first))))
        return second + (x if self.conv_shortcut is None else self.conv_shortcut(first))


class AugmixWideGroup(nn.Module):
    def __init__(self, count: int, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        blocks = [AugmixWideBlock(in_width, out_width, stride)]
        self.layer = nn.Sequential(*blocks, *(AugmixWideBlock(out_width, out_width, 1) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class AugmixWideResNet(nn.Module):
    """google-research/augmix's WideResNet-40-2, which RobustBench's checkpoints of AugMix share."""

    def __init__(self, num_classes: int = 10, depth: int = 40, widening: int = 2) -> None:
        super().__init__()
        widths, count = (16, 16 * widening, 32 * widening, 64 * widening), (depth - 4) // 6
        self.conv1 = conv(3, 16, 3)
        self.block1 = AugmixWideGroup(count, widths[0], widths[1], 1)
        self.block2 = AugmixWideGroup(count, widths[1], widths[2], 2)
        self.block3 = AugmixWideGroup(count, widths[2], widths[3], 2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))))
        return self.fc(F.avg_pool2d(x, 8).flatten(1))


class AugmixBottleneck(nn.Module):
    def __init__(self, in_width: int, planes: int, stride: int, cardinality: int, base_width: int) -> None:
        super().__init__()
        inner, out_width = planes * base_width // 64 * cardinality, planes * 4
        self.conv_reduce, self.bn_reduce = conv(in_width, inner, 1), nn.BatchNorm2d(inner)
        self.conv_conv, self.bn = conv(inner, inner, 3, stride, groups=cardinality), nn.BatchNorm2d(inner)
        self.conv_expand, self.bn_expand = conv(inner, out_width, 1), nn.BatchNorm2d(out_width)
        self.downsample = None
        if stride != 1 or in_width != out_width:
            self.downsample = nn.Sequential(conv(in_width, out_width, 1, stride), nn.BatchNorm2d(out_width))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn_reduce(self.conv_reduce(x)))
        inner = F.relu(self.bn(self.conv_conv(inner)))
        kept = x if self.downsample is None else self.downsample(x)
        return F.relu(kept + self.bn_expand(self.conv_expand(inner)))


class AugmixResNeXt(nn.Module):
    """google-research/augmix's ResNeXt-29 32x4: cardinality 4, base width 32."""

    def __init__(self, num_classes: int = 10, cardinality: int = 4, base_width: int = 32) -> None:
        super().__init__()
        self.conv_1_3x3, self.bn_1 = conv(3, 64, 3), nn.BatchNorm2d(64)
        in_width = 64
        for stage, (planes, stride) in enumerate(((64, 1), (128, 2), (256, 2)), start=1):
            blocks = [AugmixBottleneck(in_width, planes, stride, cardinality, base_width)]
            in_width = planes * 4
            blocks += [AugmixBottleneck(in_width, planes, 1, cardinality, base_width) for _ in range(2)]
            setattr(self, f"stage_{stage}", nn.Sequential(*blocks))
        self.classifier = nn.Linear(in_width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage_3(self.stage_2(self.stage_1(F.relu(self.bn_1(self.conv_1_3x3(x))))))
        return self.classifier(F.avg_pool2d(x, 8).flatten(1))


class KuangliuBlock(nn.Module):
    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(in_width, out_width, 3, stride), nn.BatchNorm2d(out_width)
        self.conv2, self.bn2 = conv(out_width, out_width, 3), nn.BatchNorm2d(out_width)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_width != out_width:
            self.shortcut = nn.Sequential(conv(in_width, out_width, 1, stride), nn.BatchNorm2d(out_width))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class KuangliuResNet18(nn.Module):
    """kuangliu/pytorch-cifar's ResNet-18."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 3), nn.BatchNorm2d(64)
        widths = (64, 64, 128, 256, 512)
        for i in range(1, 5):
            blocks = [
                KuangliuBlock(widths[i - 1], widths[i], 1 if i == 1 else 2),
                KuangliuBlock(widths[i], widths[i], 1),
            ]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


class KuangliuDenseLayer(nn.Module):
    def __init__(self, in_width: int, growth: int, newest_first: bool) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(in_width), conv(in_width, 4 * growth, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(4 * growth), conv(4 * growth, growth, 3)
        self.newest_first = newest_first

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return torch.cat([new, x] if self.newest_first else [x, new], dim=1)


class KuangliuTransition(nn.Module):
    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(in_width), conv(in_width, out_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class KuangliuDenseNet121(nn.Module):
    """kuangliu/pytorch-cifar's DenseNet-121: its layers put their new maps before the old ones."""

    def __init__(self, num_classes: int = 10, growth: int = 32, newest_first: bool = True) -> None:
        super().__init__()
        width = 2 * growth
        self.conv1 = conv(3, width, 3)
        for i, count in enumerate((6, 12, 24, 16), start=1):
            layers = [KuangliuDenseLayer(width + n * growth, growth, newest_first) for n in range(count)]
            setattr(self, f"dense{i}", nn.Sequential(*layers))
            width += count * growth
            if i < 4:
                setattr(self, f"trans{i}", KuangliuTransition(width, width // 2))
                width //= 2
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for i in range(1, 4):
            x = getattr(self, f"trans{i}")(getattr(self, f"dense{i}")(x))
        return self.linear(F.avg_pool2d(F.relu(self.bn(self.dense4(x))), 4).flatten(1))


class WeiaicunzaiBlock(nn.Module):
    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.residual_function = nn.Sequential(
            *(conv(in_width, out_width, 3, stride), nn.BatchNorm2d(out_width), nn.ReLU()),
            *(conv(out_width, out_width, 3), nn.BatchNorm2d(out_width)),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or in_width != out_width:
            self.shortcut = nn.Sequential(conv(in_width, out_width, 1, stride), nn.BatchNorm2d(out_width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual_function(x) + self.shortcut(x))


class WeiaicunzaiResNet18(nn.Module):
    """weiaicunzai/pytorch-cifar100's ResNet-18."""

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU())
        widths = (64, 64, 128, 256, 512)
        for i in range(1, 5):
            first = WeiaicunzaiBlock(widths[i - 1], widths[i], 1 if i == 1 else 2)
            setattr(self, f"conv{i + 1}_x", nn.Sequential(first, WeiaicunzaiBlock(widths[i], widths[i], 1)))
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv5_x(self.conv4_x(self.conv3_x(self.conv2_x(self.conv1(x)))))
        return self.fc(x.mean(dim=(2, 3)))


class WeiaicunzaiDenseLayer(nn.Module):
    def __init__(self, in_width: int, growth: int) -> None:
        super().__init__()
        self.bottle_neck = nn.Sequential(
            *(nn.BatchNorm2d(in_width), nn.ReLU(), conv(in_width, 4 * growth, 1)),
            *(nn.BatchNorm2d(4 * growth), nn.ReLU(), conv(4 * growth, growth, 3)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.bottle_neck(x)], dim=1)


class WeiaicunzaiTransition(nn.Module):
    """A batch normalisation and a convolution without a ReLU between them."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.down_sample = nn.Sequential(nn.BatchNorm2d(in_width), conv(in_width, out_width, 1), nn.AvgPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.down_sample(x)


class WeiaicunzaiDenseNet121(nn.Module):
    """weiaicunzai/pytorch-cifar100's DenseNet-121."""

    def __init__(self, num_classes: int = 100, growth: int = 32) -> None:
        super().__init__()
        width = 2 * growth
        self.conv1 = conv(3, width, 3)
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for i, count in enumerate((6, 12, 24, 16)):
            layers = [WeiaicunzaiDenseLayer(width + n * growth, growth) for n in range(count)]
            width += count * growth
            parts[f"dense_block_layer_{i}" if i < 3 else "dense_block3"] = nn.Sequential(
                OrderedDict((f"bottle_neck_layer_{n}", layer) for n, layer in enumerate(layers))
            )
            if i < 3:
                parts[f"transition_layer_{i}"] = WeiaicunzaiTransition(width, width // 2)
                width //= 2
        self.features = nn.Sequential(parts | {"bn": nn.BatchNorm2d(width), "relu": nn.ReLU()})
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(self.conv1(x)).mean(dim=(2, 3)))


class WeiaicunzaiWideBlock(nn.Module):
    """Its convolutions have biases, and its shortcut sees x before the normalisation."""

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(nn.BatchNorm2d(in_width), nn.ReLU(), nn.Conv2d(in_width, out_width, 3, stride, 1)),
            *(nn.BatchNorm2d(out_width), nn.ReLU(), nn.Dropout(), nn.Conv2d(out_width, out_width, 3, 1, 1)),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or in_width != out_width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_width, out_width, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class WeiaicunzaiWideResNet(nn.Module):
    """weiaicunzai/pytorch-cifar100's WideResNet-40-2."""

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        widths = (16, 32, 64, 128)
        self.init_conv = nn.Conv2d(3, 16, 3, 1, padding=1)
        for i in range(1, 4):
            blocks = [WeiaicunzaiWideBlock(widths[i - 1], widths[i], 1 if i == 1 else 2)]
            blocks += [WeiaicunzaiWideBlock(widths[i], widths[i], 1) for _ in range(5)]
            setattr(self, f"conv{i + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(128)
        self.linear = nn.Linear(128, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv4(self.conv3(self.conv2(self.init_conv(x))))
        return self.linear(F.relu(self.bn(x)).mean(dim=(2, 3)))


class DeepMindWideBlock(nn.Module):
    """A convolution of stride 2 is padded below and on the right only, as TensorFlow's SAME does."""

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.batchnorm_0 = nn.BatchNorm2d(in_width)
        self.conv_0 = nn.Conv2d(in_width, out_width, 3, stride, bias=False)
        self.batchnorm_1, self.conv_1 = nn.BatchNorm2d(out_width), conv(out_width, out_width, 3)
        self.shortcut = None if in_width == out_width else conv(in_width, out_width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.batchnorm_0(x))
        padded = F.pad(first, (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1))
        second = self.conv_1(F.relu(self.batchnorm_1(self.conv_0(padded))))
        return second + (x if self.shortcut is None else self.shortcut(first))


class DeepMindWideGroup(nn.Module):
    def __init__(self, count: int, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        blocks = [DeepMindWideBlock(in_width, out_width, stride)]
        self.block = nn.Sequential(*blocks, *(DeepMindWideBlock(out_width, out_width, 1) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DeepMindWideResNet(nn.Module):
    """DeepMind's WideResNet for adversarial robustness, as RobustBench has it, here with ReLU."""

    def __init__(self, num_classes: int = 10, depth: int = 40, widening: int = 2) -> None:
        super().__init__()
        widths, count = (16, 16 * widening, 32 * widening, 64 * widening), (depth - 4) // 6
        self.init_conv = conv(3, 16, 3)
        groups = [DeepMindWideGroup(count, widths[i], widths[i + 1], 1 if i == 0 else 2) for i in range(3)]
        self.layer = nn.Sequential(*groups)
        self.batchnorm = nn.BatchNorm2d(widths[3])
        self.logits = nn.Linear(widths[3], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.batchnorm(self.layer(self.init_conv(x))))
        return self.logits(F.avg_pool2d(x, 8).flatten(1))


class Standardised(nn.Module):
    """A network behind its normalisation, as RobustBench has it: buffers `mean` and `std`, the network `model`."""

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.normalize = nn.Module()
        self.normalize.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.normalize.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.model = network

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - self.normalize.mean) / self.normalize.std)


def trained_like(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, with random scales, shifts and running statistics of random images."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
        network.train()
        for _ in range(2):
            network(torch.rand(8, 3, 32, 32, generator=generator))
    return network.eval()

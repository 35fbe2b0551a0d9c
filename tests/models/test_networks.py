"""Networks: published parameter counts, sizes of feature maps, shapes, gradients, normalisation inside, seeds."""

import re

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from fastmagn.config.schema import ModelConfig
from fastmagn.errors import InputError
from fastmagn.models import MODELS, resnet
from fastmagn.models.resnext import resnext29
from tests.helpers.tiers import slow_but

SMALL = ("resnet_small", "resnet18", "wideresnet40_2", "densenet121_k12")  # each kind of block, in seconds


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def conv(in_width: int, out_width: int, kernel: int, groups: int = 1) -> int:
    """Weights of a convolution without bias."""
    return in_width // groups * out_width * kernel**2


def densenet121_parameters(growth: int, stem_kernel: int, num_classes: int) -> int:
    """Table 1 of the DenseNet paper, DenseNet-BC: bottlenecks of 4 * growth, compression 0.5, 2 * growth stem maps."""
    width = 2 * growth
    total = conv(3, width, stem_kernel) + 2 * width
    for block, layers in enumerate((6, 12, 24, 16)):
        for _ in range(layers):
            total += 2 * width + conv(width, 4 * growth, 1) + 2 * 4 * growth + conv(4 * growth, growth, 3)
            width += growth
        total += 2 * width  # the batch normalisation of a transition, or the last one
        if block < 3:
            total += conv(width, width // 2, 1)
            width //= 2
    return total + (width + 1) * num_classes


def wide_resnet_parameters(depth: int, widening: int, num_classes: int) -> int:
    """Table 1 of the wide ResNet paper, blocks B(3, 3) with pre-activation."""
    width, total = 16, conv(3, 16, 3)
    for out_width in (16 * widening, 32 * widening, 64 * widening):
        total += conv(width, out_width, 1)  # the shortcut of a stage's first block
        for _ in range((depth - 4) // 6):
            total += 2 * width + conv(width, out_width, 3) + 2 * out_width + conv(out_width, out_width, 3)
            width = out_width
    return total + 2 * width + (width + 1) * num_classes


def resnext29_parameters(cardinality: int, group_width: int, num_classes: int) -> int:
    """Section 5.3 of the ResNeXt paper: bottlenecks of cardinality * group_width maps in the first stage."""
    width, total = 64, conv(3, 64, 3) + 2 * 64
    for stage in (1, 2, 4):
        inner, out_width = stage * cardinality * group_width, stage * 256
        total += conv(width, out_width, 1) + 2 * out_width  # the shortcut of a stage's first block
        for _ in range(3):
            total += conv(width, inner, 1) + conv(inner, inner, 3, groups=cardinality) + conv(inner, out_width, 1)
            total += 2 * (inner + inner + out_width)
            width = out_width
    return total + (width + 1) * num_classes


def test_the_arithmetic_of_parameters_gives_the_published_numbers():
    assert densenet121_parameters(32, stem_kernel=7, num_classes=1000) == 7_978_856  # torchvision's documentation
    assert round(wide_resnet_parameters(28, 10, num_classes=10) / 1e6, 1) == 36.5  # table 4 of the paper
    assert round(wide_resnet_parameters(40, 2, num_classes=10) / 1e6, 1) == 2.2
    assert resnext29_parameters(8, 64, num_classes=10) // 100_000 == 344  # table 7 of the paper: 34.4 M, digits cut off
    assert resnext29_parameters(16, 64, num_classes=10) // 100_000 == 681  # 68.1 M


# torchvision's documentation: 27,161,264 at 1000 classes with the auxiliary head, which is a 1x1 convolution to 128
# maps, a 5x5 convolution to 768, both with batch normalisation, and a linear layer.
INCEPTION_V3_HEAD = 2049
INCEPTION_V3_TRUNK = (
    27_161_264 - (conv(768, 128, 1) + 2 * 128 + conv(128, 768, 5) + 2 * 768 + 769 * 1000) - INCEPTION_V3_HEAD * 1000
)


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", lambda k: 11_173_962 + 513 * (k - 10)),  # the usual CIFAR ResNet-18 at 10 classes
        ("resnet50", lambda k: 25_557_032 + 2049 * (k - 1000)),  # torchvision's documentation, at 1000 classes
        ("densenet121", lambda k: densenet121_parameters(32, 3, k) - 2 * 64),
        ("densenet121_k12", lambda k: densenet121_parameters(12, 3, k) - 2 * 24),
        ("inception_v3", lambda k: INCEPTION_V3_TRUNK + INCEPTION_V3_HEAD * k),
        ("wideresnet28_10", lambda k: wide_resnet_parameters(28, 10, k)),
        ("wideresnet28_4", lambda k: wide_resnet_parameters(28, 4, k)),
        ("wideresnet40_2", lambda k: wide_resnet_parameters(40, 2, k)),
        ("resnext29_32x4d", lambda k: resnext29_parameters(32, 4, k)),
        ("resnext29_4x32d", lambda k: resnext29_parameters(4, 32, k)),
    ],
)
def test_published_number_of_parameters(build, name, expected, num_classes):
    with torch.device("meta"):  # no weights are drawn
        assert count(build(name, num_classes)) == expected(num_classes)


def test_the_published_resnext_has_its_number_of_parameters():
    with torch.device("meta"):
        assert count(resnext29(10, cardinality=8, width=64)) // 100_000 == 344


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("resnet18", {"layer1": 32, "layer2": 16, "layer3": 8, "layer4": 4}),
        (
            "densenet121",
            {f"features.denseblock{i + 1}": size for i, size in enumerate((32, 16, 8, 4))},
        ),
        ("inception_v3", {"maxpool2": 30, "Mixed_5d": 30, "Mixed_6a": 14, "Mixed_6e": 14, "Mixed_7c": 6}),
        ("wideresnet40_2", {"stage1": 32, "stage2": 16, "stage3": 8}),
        ("resnext29_32x4d", {"stage1": 32, "stage2": 16, "stage3": 8}),
    ],
)
def test_feature_maps_at_32_pixels(build, name, sizes):
    with torch.device("meta"):
        network, seen = build(name).network, {}
        for stage in sizes:
            network.get_submodule(stage).register_forward_hook(
                lambda module, inputs, maps, stage=stage: seen.update({stage: maps.shape[2:]})
            )
        network(torch.rand(2, 3, 32, 32))
    assert seen == {stage: (size, size) for stage, size in sizes.items()}


@pytest.mark.parametrize("name", slow_but(MODELS, *SMALL))
def test_every_network_gives_finite_logits_and_gradients(build, name):
    model = build(name).to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last)
    logits = model(images)
    assert logits.shape == (2, 10)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", slow_but(MODELS, *SMALL))
def test_every_network_evaluates_an_image_by_itself_in_either_memory_format(build, name):
    model = build(name, num_classes=100)
    images = torch.rand(2, 3, 32, 32)
    state = torch.random.get_rng_state()
    model(images)  # running statistics that are not their first values
    assert torch.equal(state, torch.random.get_rng_state())  # no dropout: a resumed run could not repeat it
    with torch.inference_mode():
        logits = model.eval()(images)
        close = {"atol": 1e-4 * logits.abs().max().item(), "rtol": 0}
        torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), logits, **close)
        model.to(memory_format=torch.channels_last)
        torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), logits, **close)


def test_building_leaves_the_random_numbers_of_every_device(build, monkeypatch):
    """torch.manual_seed seeds CUDA's generators too, which no context here would put back."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    state = torch.random.get_rng_state()
    build("resnet_small", num_classes=7)
    assert not seeded
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("name", "side"), [(name, 64) for name in MODELS] + [("resnet50", 224)])
def test_larger_images(build, name, side):
    with torch.device("meta"):
        assert build(name, num_classes=7)(torch.rand(2, 3, side, side)).shape == (2, 7)


def assert_one_graph(network: nn.Module, images: torch.Tensor) -> None:
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(network, fullgraph=True, backend="eager")(images), network(images))


@pytest.mark.slow
def test_torchvisions_networks_compile_into_one_graph(build):
    """Their code is marked up for torch.jit; a dense block and the whole of Inception-V3 have all those marks."""
    assert_one_graph(build("densenet121_k12").network.features.denseblock1, torch.rand(2, 24, 8, 8))
    assert_one_graph(build("inception_v3"), torch.rand(2, 3, 16, 16))


def test_two_views_compile_into_one_graph(build):
    assert_one_graph(build("resnet_small", num_views=2, bn_views="per_view"), torch.rand(4, 3, 32, 32))


def test_the_model_normalises_its_images_itself(build):
    model = build("resnet_small").eval()
    images = torch.rand(2, 3, 32, 32)
    mean, std = (0.49, 0.48, 0.44), (0.25, 0.24, 0.26)
    by_hand = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(model(images), model.network(by_hand))


@pytest.mark.parametrize(
    "name", slow_but([name for name in MODELS if name not in {"wideresnet28_10", "inception_v3"}], *SMALL)
)
def test_weights_depend_on_the_seed_alone(build, name):
    state = torch.random.get_rng_state()
    first, second, other = build(name, seed=3), build(name, seed=3), build(name, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    for (parameter_name, a), b, c in zip(
        first.named_parameters(), second.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b), parameter_name
        if a.ndim > 1:
            assert not torch.equal(a, c), parameter_name


def test_weights_depend_on_every_bit_of_the_seed(build):
    """PyTorch's generator on the CPU takes the low 32 bits alone, which are the same here."""
    weights = [next(build("resnet_small", seed=seed).parameters()) for seed in (3, 2**32 + 3, 2**33 + 3, 2**63 + 3)]
    assert len({weight.detach().numpy().tobytes() for weight in weights}) == 4
    assert torch.equal(next(build("resnet_small", seed=2**63 + 3).parameters()), weights[-1])


def test_an_unknown_network_is_named_with_the_nearest(build):
    text = (
        r"model\.name: got 'resnet81'; expected one of resnet18, .*, or torchvision:NAME or timm:NAME for any "
        r"network of torchvision or timm\. Did you mean 'resnet18'\?"
    )
    with pytest.raises(InputError, match=text):
        build("resnet81")


def test_the_help_names_every_network():
    for name in MODELS:
        assert re.search(rf"\b{name}\b", ModelConfig.__doc__), name


def torchvisions_block(in_width: int, out_width: int) -> nn.Module:
    if in_width == out_width:
        return BasicBlock(in_width, out_width)
    shortcut = nn.Sequential(
        nn.Conv2d(in_width, out_width, kernel_size=1, stride=2, bias=False), nn.BatchNorm2d(out_width)
    )
    return BasicBlock(in_width, out_width, stride=2, downsample=shortcut)


@pytest.mark.parametrize("name", ["resnet_small", "resnet_small_deep"])
def test_resnet_small_is_made_of_torchvisions_blocks(name, monkeypatch):
    """It has their weights, by name, order and bits of a seed, and in training their outputs and gradients."""
    networks, gradients, outputs = [], [], []
    for block in (resnet.SmallBlock, torchvisions_block):
        monkeypatch.setattr(resnet, "SmallBlock", block)
        torch.manual_seed(7)
        networks.append(getattr(resnet, name)(5))
        outputs.append(networks[-1](torch.rand(4, 3, 32, 32)))
        outputs[-1].square().sum().backward()
        gradients.append([parameter.grad for parameter in networks[-1].parameters()])
    ours, theirs = (network.state_dict() for network in networks)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(*outputs)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert any(isinstance(module, BasicBlock) for module in networks[1].modules())
    assert not any(isinstance(module, BasicBlock) for module in networks[0].modules())

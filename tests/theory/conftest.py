"""Small networks in float64, whose derivatives can be had exactly."""

import pytest
import torch
from torch import nn

SIDE_PX, NUM_CLASSES = 2, 4  # D = 3 * 2 * 2 = 12 inputs


@pytest.fixture(scope="session")
def make_network():
    """(activation, seed, scale) -> a network for [B, 3, 2, 2] images in evaluation mode; scale makes it confident."""

    def make(activation: nn.Module, seed: int = 0, scale: float = 3.0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layers = [nn.Conv2d(3, 8, 2), nn.BatchNorm2d(8), activation, nn.Flatten(), nn.Linear(8, 16), activation]
            network = nn.Sequential(*layers, nn.Linear(16, NUM_CLASSES)).double()
            network[1].running_mean.normal_()
            network[1].running_var.uniform_(0.5, 2)
            for layer in network:
                if hasattr(layer, "weight"):
                    layer.weight.data *= scale
        return network.eval()

    return make


@pytest.fixture(scope="session")
def make_linear():
    """(seed, scale) -> logits W x + b, and W [K, D]."""

    def make(seed: int = 0, scale: float = 1.0) -> tuple[nn.Module, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        linear = nn.Linear(3 * SIDE_PX**2, NUM_CLASSES).double()
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        return nn.Sequential(nn.Flatten(), linear).eval(), linear.weight.detach()

    return make


@pytest.fixture(scope="session")
def make_images():
    """(number, seed) -> images [number, 3, 2, 2] uniform in [0, 1]."""

    def make(number: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(number, 3, SIDE_PX, SIDE_PX, generator=generator, dtype=torch.float64)

    return make

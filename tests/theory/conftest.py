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


class Transformer(nn.Module):
    """One encoder layer over the pixels: PyTorch's own, with fused attention, or the same by plain products."""

    def __init__(self, is_fused: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem, self.head = nn.Linear(3, 8), nn.Linear(8, NUM_CLASSES)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, activation="gelu", batch_first=True)
        self.is_fused = is_fused

    def forward(self, images):
        tokens = 3 * self.stem(images.flatten(2).mT)
        return 3 * self.head((self.layer if self.is_fused else self._plain)(tokens).mean(dim=1))

    def _plain(self, tokens):
        layer = self.layer
        projected = tokens @ layer.self_attn.in_proj_weight.T + layer.self_attn.in_proj_bias
        queries, keys, values = projected.unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(queries @ keys.mT / 4**0.5, dim=-1) @ values
        tokens = layer.norm1(tokens + layer.self_attn.out_proj(mixed.transpose(1, 2).flatten(2)))
        return layer.norm2(tokens + layer.linear2(nn.functional.gelu(layer.linear1(tokens))))


@pytest.fixture(scope="session")
def make_transformer():
    """(is_fused) -> a network for [B, 3, H, W] images in evaluation mode, with the same weights either way."""
    return lambda is_fused: Transformer(is_fused).double().eval()


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

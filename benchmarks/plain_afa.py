"""AFA's view as plain torch has it, for a comparison: a sine and a norm over all pixels, torch's own generator."""

import math

import numpy as np
import torch
from torch import Tensor

from benchmarks.plain_prime import cropped

NUM_DIRECTIONS = 448
MEAN_STRENGTH = 10.0


def afa_views(images_u8: Tensor, rng: np.random.Generator) -> Tensor:
    """The views of AFA: uint8 [B, 3, H, H] -> float32 [2*B, 3, H, H], clean then with waves. `rng` is not used."""
    images = cropped(images_u8)
    return torch.cat([images, with_waves(images)])


def with_waves(images: Tensor) -> Tensor:
    """Images with a random plane wave in each channel: float32 [B, 3, H, H] -> the same, in [0, 1], on any device."""
    batch, channels, side, _ = images.shape
    device, shape = images.device, (batch, channels, 1, 1)
    frequency = torch.randint(1, side + 1, shape, device=device) / side
    direction = -math.pi * torch.randint(0, NUM_DIRECTIONS, shape, device=device) / (NUM_DIRECTIONS - 1)
    strength = torch.empty(shape, device=device).exponential_(1 / MEAN_STRENGTH)
    positions = torch.linspace(-side / 2, side / 2, side, device=device)
    y, x = torch.meshgrid(positions, positions, indexing="ij")
    waves = torch.sin(2 * math.pi * frequency * (y * direction.cos() + x * direction.sin()) - math.pi / 4)
    waves = waves / waves.norm(dim=(-2, -1), keepdim=True) * (side / 32)
    return (images + strength * waves).clamp(0, 1)

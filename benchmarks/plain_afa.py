"""AFA's view as plain torch has it, for a comparison: a sine and a norm over all pixels, torch's own generator."""

import math

import torch
from torch import Tensor

NUM_DIRECTIONS = 448
MEAN_STRENGTH = 10.0


def plain_afa(images_u8: Tensor) -> Tensor:
    """Images with a random plane wave in each channel.

    Args:
        images_u8: uint8 [B, 3, H, H], on any device.

    Returns:
        float32 [B, 3, H, H] in [0, 1].
    """
    batch, channels, side, _ = images_u8.shape
    device, shape = images_u8.device, (batch, channels, 1, 1)
    frequency = torch.randint(1, side + 1, shape, device=device) / side
    direction = -math.pi * torch.randint(0, NUM_DIRECTIONS, shape, device=device) / (NUM_DIRECTIONS - 1)
    strength = torch.empty(shape, device=device).exponential_(1 / MEAN_STRENGTH)
    positions = torch.linspace(-side / 2, side / 2, side, device=device)
    y, x = torch.meshgrid(positions, positions, indexing="ij")
    waves = torch.sin(2 * math.pi * frequency * (y * direction.cos() + x * direction.sin()) - math.pi / 4)
    waves = waves / waves.norm(dim=(-2, -1), keepdim=True) * (side / 32)
    return (images_u8.float() / 255 + strength * waves).clamp(0, 1)

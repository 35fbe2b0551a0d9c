"""PRIME as plain training code makes it: a crop and a flip for each image, then whole batches in torch operations.

The views of `prime` are timed against this code. Like the authors' code, it applies all three primitives to all chains
and keeps one result of each, evaluates every sine of a colour curve at every pixel, and draws the primitives' strengths
and the displacement once for a batch.

Shape letters: N chains of a batch, B batch, H W image.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

Rng = np.random.Generator

WIDTH, DEPTH, PADDING_PX = 3, 3, 4
FREQUENCIES, VARIANCE, CUT, FILTER_STD = 100, 0.01, 100, 4.0


def prime_views(images_u8: Tensor, rng: Rng) -> Tensor:
    """The views of PRIME: uint8 [B, 3, H, W] -> float32 [3*B, 3, H, W], clean then two mixed ones."""
    images = cropped(images_u8)
    return torch.cat([images, mixed(images, rng), mixed(images, rng)])


def prime_no_jsd_views(images_u8: Tensor, rng: Rng) -> Tensor:
    """One PRIME view: uint8 [B, 3, H, W] -> float32 [B, 3, H, W]."""
    return mixed(cropped(images_u8), rng)


def cropped(images_u8: Tensor) -> Tensor:
    """Random crop and flip of each image, as a loader's worker makes them: float32 [B, 3, H, W] in [0, 1]."""
    steps = [v2.RandomCrop(images_u8.shape[2:], padding=PADDING_PX), v2.RandomHorizontalFlip()]
    base = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])
    return torch.stack([base(image) for image in images_u8])


def mixed(images: Tensor, rng: Rng) -> Tensor:
    """PRIME's mixture of chains with the images."""
    batch = len(images)
    chains = images.repeat(WIDTH, 1, 1, 1)
    depths = _column(rng.integers(1, DEPTH + 1, len(chains)))
    for step in range(DEPTH):
        kinds = _column(rng.integers(0, 3, len(chains)))
        changed = torch.zeros_like(chains)
        for kind, change in enumerate((displaced, recolored, filtered)):
            changed += change(chains, rng) * (kinds == kind)
        chains = torch.where(step < depths, changed, chains)
    weights = torch.from_numpy(rng.dirichlet([1.0] * WIDTH, batch)).float()
    share = _column(rng.beta(1, 1, batch)).float()
    return (1 - share) * images + share * torch.einsum("bm,mbchw->bchw", weights, chains.unflatten(0, (WIDTH, batch)))


def filtered(images: Tensor, rng: Rng) -> Tensor:
    """A 3 x 3 filter of normals for each image."""
    count = len(images)
    weights = _normals(rng, count, 1, 3, 3) * rng.uniform(0, FILTER_STD)
    weights[:, :, 2, 2] += 1
    planes = images.transpose(0, 1).contiguous()
    return F.conv2d(planes, weights, padding=1, groups=count).transpose(0, 1).clamp(0, 1)


def recolored(images: Tensor, rng: Rng) -> Tensor:
    """A sum of sines for each image and channel, evaluated at every pixel."""
    frequencies = torch.arange(1, int(rng.integers(1, FREQUENCIES + 1)) + 1)
    scale = math.sqrt(rng.uniform(0, VARIANCE))
    coefficients = scale * _normals(rng, *images.shape[:2], len(frequencies))
    sines = torch.sin(images.flatten(2)[..., None] * frequencies * math.pi)
    return (images + torch.einsum("ncpk,nck->ncp", sines, coefficients).view_as(images)).clamp(0, 1)


def displaced(images: Tensor, rng: Rng) -> Tensor:
    """One smooth displacement for all images, which are square."""
    side = images.shape[-1]
    bound = int(rng.integers(3, CUT + 1))
    cut = min(int(2 + (bound - 1) * rng.beta(0.5, 0.5)), bound)
    k = torch.arange(1, cut + 1)
    radius = torch.hypot(k[:, None].float(), k.float())
    sines = torch.sin(math.pi * torch.linspace(0, 1, side)[:, None] * k)
    low = 1 / (math.pi * side**2 * math.log(cut))
    high = max(low, 4 / (math.pi**3 * cut**2 * math.log(cut)))
    scale = math.sqrt(low + (high - low) * rng.beta(0.5, 0.5)) * side

    def places(along: Tensor) -> Tensor:
        modes = _normals(rng, cut, cut) * (radius < cut + 0.5) / radius
        return (along - scale * sines @ modes @ sines.T).clamp(0, side - 1)

    x, y = places(torch.arange(side).float()), places(torch.arange(side).float()[:, None])
    left, right, top, bottom = (place.long() for place in (x.floor(), x.ceil(), y.floor(), y.ceil()))
    u, v = x - left, y - top
    upper = (1 - u) * images[..., top, left] + u * images[..., top, right]
    return (1 - v) * upper + v * ((1 - u) * images[..., bottom, left] + u * images[..., bottom, right])


def _normals(rng: Rng, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape, np.float32))


def _column(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values)[:, None, None, None]

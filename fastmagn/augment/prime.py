"""PRIME's primitives and their mixture in plain torch operations, on any device; float64, as the CPU's kernels.

Shape letters: N images, C H W image, K frequencies, P and Q modes down and along the rows.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from fastmagn_kernels.random.prime import mode_sines

_NODES_PER_FREQUENCY = 40
_LOWEST_NODE, _NUM_NODES = -2, 6  # of an interval's six nodes, two lie before it and two after it


def filtered(images: Tensor, weights: Tensor) -> Tensor:
    """Each image correlated with its own filter, clipped to [0, 1]; zeros are outside the image.

    Args:
        images: float64 [N, C, H, W].
        weights: float64 [N, 9], row by row.
    """
    count, channels, height, width = images.shape
    filters = weights.repeat_interleave(channels, dim=0).view(-1, 1, 3, 3)
    out = F.conv2d(images.reshape(1, -1, height, width), filters, padding=1, groups=count * channels)
    return out.view_as(images).clamp_(0, 1)


def recolored(images: Tensor, coefficients: Tensor) -> Tensor:
    """clip(c + sum_k a_k sin(k pi c)) of each value c, with its own curve for each image and channel.

    The sums are tables of 40 K intervals, between whose nodes a polynomial of degree 5 interpolates. With K = 100 and
    coefficients of deviation 0.1, the largest that PRIME draws, its error is about 1e-9.

    Args:
        images: float64 [N, C, H, W] in [0, 1].
        coefficients: a_k, float64 [N, C, K].
    """
    num_frequencies = coefficients.shape[2]
    intervals = _NODES_PER_FREQUENCY * num_frequencies
    nodes = torch.arange(_LOWEST_NODE, intervals + _NUM_NODES + _LOWEST_NODE, device=images.device).double() / intervals
    frequencies = torch.arange(1, num_frequencies + 1, device=images.device).double()
    tables = coefficients @ torch.sin(torch.pi * frequencies[:, None] * nodes)
    places = images.flatten(2) * intervals
    first = places.floor().clamp_(0, intervals - 1)
    offsets, first = places - first, first.long()
    total = images.flatten(2).clone()
    for n in range(_NUM_NODES):
        weight = torch.ones_like(offsets)
        for m in range(_NUM_NODES):
            if m != n:
                weight *= (offsets - (m + _LOWEST_NODE)) / (n - m)
        total += weight * tables.gather(2, first + n)
    return total.clamp_(0, 1).view_as(images)


def displaced(images: Tensor, modes: Tensor) -> Tensor:
    """Each image sampled at (x - dx, y - dy), bilinear; places outside the image are moved to its edge.

    Args:
        images: float64 [N, C, H, W].
        modes: float64 [N, 2, P, Q]: dx and dy are sum_pq modes[p, q] sin(p pi y / (H - 1)) sin(q pi x / (W - 1)), px.
    """
    (height, width), (num_rows, num_columns) = images.shape[2:], modes.shape[2:]
    sines_y = _sines_on(images.device, num_rows, height)
    sines_x = _sines_on(images.device, num_columns, width)
    fields = sines_y.T @ modes @ sines_x
    x = (torch.arange(width, device=images.device) - fields[:, 0]).clamp_(0, width - 1)
    y = (torch.arange(height, device=images.device)[:, None] - fields[:, 1]).clamp_(0, height - 1)
    left, top = x.long(), y.long()
    right, bottom = (left + 1).clamp_(max=width - 1), (top + 1).clamp_(max=height - 1)
    u, v = (x - left)[:, None], (y - top)[:, None]

    def at(row: Tensor, column: Tensor) -> Tensor:
        place = (row * width + column).flatten(1)[:, None].expand(-1, images.shape[1], -1)
        return images.flatten(2).gather(2, place).view_as(images)

    upper, lower = torch.lerp(at(top, left), at(top, right), u), torch.lerp(at(bottom, left), at(bottom, right), u)
    return torch.lerp(upper, lower, v)


@functools.lru_cache(maxsize=16)
def _sines_on(device: torch.device, count: int, size: int) -> Tensor:
    """The modes' sines, float64 [count, size]; copied to a device once, since such a copy waits for the device."""
    return torch.from_numpy(mode_sines(count, size)).to(device)

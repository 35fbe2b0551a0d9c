"""The normals of `fastmagn_kernels.random.rng`, computed in torch on any device: torch engines draw the same noise.

Shape letters: N noise views, B batch, E elements of an image, Q blocks of four, ceil(E / 4).
"""

import math
from typing import Any

import torch
from torch import Tensor

from fastmagn_kernels.random import rng

# The two multipliers of philox4x32 and the Weyl steps of its key. Source: J. Salmon et al., SC 2011 (Random123).
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW_32 = 0xFFFFFFFF


def standard_normal(
    stream: int, num_views: int, indices: Tensor, epoch: int, seed: int, num_elements: int
) -> Tensor:  # fmt: skip
    """Standard normals, float32 [N, B, E]: row (n, b) is `rng.standard_normal`'s for view n and sample `indices[b]`.

    The random words are the same. Float64 functions replace the float32 polynomials of `rng`, so normals differ by less
    than 1e-6.

    Args:
        stream: rng.STREAM_*.
        num_views: N.
        indices: int64 [B] in 0..2^32 - 1; the result is on the same device.
        epoch: 0..2^32 - 1.
        seed: The run's, 0..2^64 - 1.
        num_elements: E.
    """
    quarter = (num_elements + 3) // 4
    slots = torch.arange(quarter, device=indices.device)
    stream_views = (stream << 24) + torch.arange(num_views, device=indices.device)[:, None, None]
    words = philox4x32(slots, stream_views, indices[:, None], epoch, seed)
    normals = torch.empty((num_views, len(indices), 4, quarter), dtype=torch.float32, device=indices.device)
    for pair in range(2):
        uniform = ((words[2 * pair] >> 8).float() + 0.5) * 2.0**-24  # in float32, because `rng` rounds here too
        angle = words[2 * pair + 1].double() * (2 * math.pi / 2**32)
        radius = (-2 * uniform.double().log()).sqrt()
        normals[:, :, 2 * pair] = radius * angle.cos()
        normals[:, :, 2 * pair + 1] = radius * angle.sin()
    return normals.flatten(2)[..., :num_elements]


def philox4x32(slot: Tensor, stream_view: Tensor, index: Tensor, epoch: int, seed: int) -> tuple[Tensor, ...]:
    """One Philox 4x32-10 block for each counter: the four words, int64 in 0..2^32 - 1.

    `slot`, `stream_view` and `index` are int64 in the same range, with shapes that broadcast. torch has no unsigned
    64-bit product, but its int64 product wraps and has the same bits; the mask removes the bits that the shift fills
    with the sign.
    """
    c0, c1, c2 = slot, stream_view, index
    c3: Any = epoch  # a tensor after the first round
    key = [int(word) for word in rng.key_words(seed)]
    for _ in range(_ROUNDS):
        product_0, product_1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((product_1 >> 32) ^ c1 ^ key[0]) & _LOW_32, product_1 & _LOW_32
        c2, c3 = ((product_0 >> 32) ^ c3 ^ key[1]) & _LOW_32, product_0 & _LOW_32
        key = [(word + step) & _LOW_32 for word, step in zip(key, _KEY_STEPS, strict=True)]
    return c0, c1, c2, c3

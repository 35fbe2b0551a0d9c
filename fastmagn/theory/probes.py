"""Random directions for the estimators. Each is a function of (seed, purpose, draw, sample), of nothing else.

They are drawn from the counter-based stream of the training noise (`fastmagn_kernels.random.draws`), in an epoch that
no run reaches, as view `purpose * 2^16 + draw`. So no result depends on the batch size, and all models get the same.
"""

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from fastmagn.errors import as_integer
from fastmagn.theory.config import MAX_DRAWS
from fastmagn_kernels.random import draws, rng

_EPOCH = 2**32 - 2


class Purpose(IntEnum):
    """What a direction is for. Never reuse a number for another purpose."""

    FISHER_PROBE = 0
    FISHER_START = 1
    HESSIAN_PROBE = 2
    HESSIAN_START = 3
    DEVIATION = 4
    REGULARISER = 5


def standard_normal(like: Tensor, purpose: Purpose, draw: int, indices: np.ndarray, seed: int) -> Tensor:
    """Standard normals of the shape [B, ...], dtype and device of `like`.

    Args:
        like: The images that they are for.
        purpose: What they are for.
        draw: Number of the draw, 0..2^16 - 1.
        indices: int64 [B], each image's sample index, 0..2^32 - 1.
        seed: 0..2^64 - 1.
    """
    seed = as_integer("seed", seed, range(2**64), "an integer in 0..2^64 - 1")
    assert 0 <= draw < MAX_DRAWS
    assert indices.shape == like.shape[:1]
    normals = np.empty((len(indices), like[:1].numel()), np.float32)
    rng.standard_normal_batch(
        normals, rng.STREAM_NOISE, purpose * MAX_DRAWS + draw, indices, _EPOCH, *rng.key_words(seed)
    )
    return torch.from_numpy(normals).to(like.device, like.dtype).view(like.shape)


def rademacher(like: Tensor, purpose: Purpose, draw: int, indices: np.ndarray, seed: int) -> Tensor:
    """Signs -1 and 1, each with probability 1/2; arguments as `standard_normal`'s."""
    return torch.where(standard_normal(like, purpose, draw, indices, seed) < 0, -1.0, 1.0).to(like.dtype)


def noise_levels(like: Tensor, num_draws: int, sigma_max: float, indices: np.ndarray, seed: int) -> Tensor:
    """sigma ~ U[0, sigma_max] of each draw and image, [num_draws, B]; arguments as `standard_normal`'s."""
    seed = as_integer("seed", seed, range(2**64), "an integer in 0..2^64 - 1")
    unit = np.empty((num_draws, len(indices)), np.float32)
    draws.fill_sigma(indices, _EPOCH, *rng.key_words(seed), 1.0, unit)
    return sigma_max * torch.from_numpy(unit).to(like.device, like.dtype)

"""What PRIME draws for a batch, and the variances of its displacements' modes in plain numbers."""

import functools
import math

import numpy as np

from fastmagn.methods.context import StepContext
from fastmagn.methods.prime import draw_settings
from fastmagn_kernels.random import prime


def plan_of(context: StepContext, num_views: int = 1) -> tuple[prime.Plan, prime.Settings]:
    settings = draw_settings(context, 32, 32)
    shape = (num_views, len(context.indices), settings.mixture_width)
    plan = prime.Plan(
        primitives=np.empty((*shape, settings.max_depth), np.int8),
        chain_weights=np.empty(shape, np.float32),
        mix_weight=np.empty(shape[:2], np.float32),
    )
    prime.fill_plan(plan, context.indices, settings)
    return plan, settings


@functools.cache
def pixel_mode(k: int, size: int) -> int | None:
    """The lowest mode whose sine is that of mode k at the pixels, up to its sign; None if that is 0 there."""
    x = np.linspace(0, math.pi, size)
    for m in range(1, size - 1):
        if any(np.abs(np.sin(k * x) - sign * np.sin(m * x)).max() < 1e-9 for sign in (1, -1)):
            return m
    assert np.abs(np.sin(k * x)).max() < 1e-9
    return None


@functools.cache
def plain_variances(cut: int, height: int, width: int) -> dict[tuple[int, int], float]:
    """The published variances 1 / r^2, added up for each of the modes that pixels tell apart."""
    down, along = [pixel_mode(k, height) for k in range(cut + 1)], [pixel_mode(k, width) for k in range(cut + 1)]
    variances: dict[tuple[int, int], float] = {}
    for j in range(1, cut + 1):
        for i in range(1, cut + 1):
            if math.hypot(i, j) < cut + 0.5 and down[j] and along[i]:
                place = down[j], along[i]
                variances[place] = variances.get(place, 0.0) + 1 / (i * i + j * j)
    return variances

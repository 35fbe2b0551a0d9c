"""Averages of the weights, without host synchronisation: exponential, or equal over the last epochs (SWA)."""

import copy

import torch
from torch import nn


def make_average(model: nn.Module) -> nn.Module:
    """A copy of the model for `update_average` or `update_equal_average`; it has no gradients."""
    return copy.deepcopy(model).requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average <- d average + (1 - d) model, for parameters and floating-point buffers (batch-norm statistics).

    Args:
        average: From `make_average`.
        model: The model after the optimiser step.
        decay: The final d, 0 <= decay < 1.
        step: Steps done before this one. Early on, d is (1 + step) / (10 + step), so the first weights fade quickly.
    """
    _move(average, model, 1 - min(decay, (1 + step) / (10 + step)))


@torch.no_grad()
def update_equal_average(average: nn.Module, model: nn.Module, count: int) -> None:
    """The average of `count` + 1 models from that of the first `count` and the next one; see `update_average`.

    Source: P. Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.
    """
    _move(average, model, 1 / (count + 1))


def _move(average: nn.Module, model: nn.Module, share: float) -> None:
    """average <- (1 - share) average + share model; counters are copied. What has several names moves once."""
    kept, new = average.state_dict(keep_vars=True).values(), model.state_dict(keep_vars=True).values()
    pairs = {id(value): (value, other) for value, other in zip(kept, new, strict=True)}.values()
    floats = [(value, other) for value, other in pairs if value.is_floating_point()]
    torch._foreach_lerp_([value for value, _ in floats], [other for _, other in floats], share)
    for value, other in pairs:
        if not value.is_floating_point():  # a counter
            value.copy_(other)

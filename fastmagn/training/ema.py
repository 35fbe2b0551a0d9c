"""An exponential moving average of a model's weights, without a host synchronisation."""

import copy

import torch
from torch import nn


def make_average(model: nn.Module) -> nn.Module:
    """A copy of the model for `update_average` to keep; it takes no gradients."""
    return copy.deepcopy(model).requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average <- d average + (1 - d) model, for parameters and floating buffers (batch normalisation's statistics).

    Args:
        average: From `make_average`.
        model: After the optimiser's step.
        decay: d in the long run, 0 <= decay < 1.
        step: Steps done before this one; early on d is (1 + step) / (10 + step), so that the first weights soon fade.
    """
    decay = min(decay, (1 + step) / (10 + step))
    kept, new = list(average.state_dict().values()), list(model.state_dict().values())
    floats = [i for i, value in enumerate(kept) if value.is_floating_point()]
    torch._foreach_lerp_([kept[i] for i in floats], [new[i] for i in floats], 1 - decay)
    for i in set(range(len(kept))) - set(floats):  # counters
        kept[i].copy_(new[i])

"""The optimisers, and the learning rate as a pure function of the step: it has no state to save."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from fastmagn.config.schema import OptimConfig
from fastmagn.training.muon import Muon

# The shape of torch.optim.lr_scheduler.OneCycleLR with its defaults.
WARMUP_FRACTION = 0.3
TRIANGLE_TOP = 0.2  # the fraction of the steps at which the triangular schedule peaks
FIRST_LR_DIVISOR = 25.0
LAST_LR_DIVISOR = 25.0 * 1e4


def make_optimizer(parameters: Iterable[nn.Parameter], optim: OptimConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (plain SGD if momentum is 0), with one fused kernel for all parameters; or Muon."""
    if optim.name == "muon":
        return Muon(
            parameters,
            lr=optim.lr,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            filter_lr_ratio=optim.filter_lr_ratio,
        )
    return torch.optim.SGD(
        parameters,
        lr=optim.lr,
        momentum=optim.momentum,
        nesterov=optim.momentum > 0,
        weight_decay=optim.weight_decay,
        fused=True,
    )


def learning_rate(step: int, optim: OptimConfig, *, steps_per_epoch: int, epochs: int) -> float:
    """The learning rate of step 0 .. epochs * steps_per_epoch - 1."""
    if optim.schedule == "step":
        return optim.lr * optim.step_factor ** (step // steps_per_epoch // optim.step_epochs)
    last = epochs * steps_per_epoch - 1
    if optim.schedule == "triangular":
        top = TRIANGLE_TOP * (last + 1)
        return optim.lr * min((step + 1) / (top + 1), (last + 1 - step) / (last + 1 - top))
    peak = max(WARMUP_FRACTION * (last + 1) - 1, 0.0)
    if step <= peak:
        return _cosine(optim.lr / FIRST_LR_DIVISOR, optim.lr, step / peak if peak else 1.0)
    return _cosine(optim.lr, optim.lr / LAST_LR_DIVISOR, (step - peak) / (last - peak))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))

"""The optimisers, and the learning rate as a pure function of the step: it has no state to save."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from fastmagn.config.schema import OptimConfig
from fastmagn.training.muon import Muon

# The learning rate of torch.optim.lr_scheduler.OneCycleLR with its defaults, for four steps or more. That one moves the
# momentum too.
WARMUP_FRACTION = 0.3
TRIANGLE_TOP = 0.2  # the fraction of the steps at which the triangular schedule peaks
SWA_LR_EPOCHS = 5
FIRST_LR_DIVISOR = 25.0
LAST_LR_DIVISOR = 25.0 * 1e4


def make_optimizer(parameters: Iterable[nn.Parameter], optim: OptimConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum (plain SGD if momentum is 0) or AdamW, with fused kernels; or Muon."""
    if optim.name == "muon":
        return Muon(
            parameters,
            lr=optim.lr,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            filter_lr_ratio=optim.filter_lr_ratio,
        )
    parameters = list(parameters)
    if optim.name == "adamw":
        return _adamw(parameters, optim)
    optimizer = torch.optim.SGD(
        parameters,
        lr=optim.lr,
        momentum=optim.momentum,
        nesterov=optim.momentum > 0,
        weight_decay=optim.weight_decay,
        fused=True,
    )
    if optim.momentum > 0:
        # Its kernel leaves the buffers of a first step that is skipped, as float16 overflows, as they were allocated.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _adamw(parameters: list[nn.Parameter], optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW. Biases and the scales of normalisations and of layers, which have one dimension, do not decay."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (optim.beta1, optim.beta2)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=betas, weight_decay=optim.weight_decay, fused=True)


def learning_rate(
    step: int, optim: OptimConfig, *, steps_per_epoch: int, epochs: int, first_averaged: int | None = None
) -> float:
    """The learning rate of step 0 .. epochs * steps_per_epoch - 1.

    From epoch `first_averaged` on, if it is given, the rate moves linearly to `swa_lr_ratio` * `lr`, in 5 epochs.
    """
    start = None if first_averaged is None or optim.swa_lr_ratio == 0 else first_averaged * steps_per_epoch
    if start is None or step <= start:
        return _scheduled(step, optim, steps_per_epoch, epochs)
    before = _scheduled(start, optim, steps_per_epoch, epochs)
    moved = min(1.0, (step - start) / (SWA_LR_EPOCHS * steps_per_epoch))
    return before + (optim.swa_lr_ratio * optim.lr - before) * moved


def _scheduled(step: int, optim: OptimConfig, steps_per_epoch: int, epochs: int) -> float:
    if optim.schedule == "step":
        epoch = step // steps_per_epoch
        if optim.step_at is not None:
            return optim.lr * optim.step_factor ** sum(int(at) <= epoch for at in str(optim.step_at).split(","))
        return optim.lr * optim.step_factor ** (epoch // optim.step_epochs)
    if optim.schedule == "cosine_restarts":
        first, length = 0, optim.restart_epochs * steps_per_epoch
        while step >= first + length:
            first, length = first + length, length * optim.restart_factor
        return _cosine(optim.lr, 0.0, (step - first) / length)
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

"""Batch normalisation: separate statistics for each view of a fused batch, and those of a test batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class PerViewBatchNorm(_BatchNorm):
    """A mixin for a batch normalisation: each of the V views stacked in [V*B, ...] has its own batch statistics.

    Running statistics are updated once for each view, in order, as in V separate forward passes. Parameters and buffers
    keep their names, so the same checkpoints fit networks with and without it.
    """

    num_views: int = 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.num_views == 1:
            return super().forward(x)
        return torch.cat([super(PerViewBatchNorm, self).forward(view) for view in x.chunk(self.num_views)])


def split_batch_norm(network: nn.Module, num_views: int) -> None:
    """Make every batch normalisation of `network` a PerViewBatchNorm for `num_views` views, in place.

    Subclasses keep what they add, such as the activation of timm's BatchNormAct2d.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            kind: Any = type(module)
            module.__class__ = _per_view(kind)
            cast(PerViewBatchNorm, module).num_views = num_views


@cache
def _per_view(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(f"PerView{kind.__name__}", (PerViewBatchNorm, kind), {})


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a batch normalisation of the model keeps running statistics, which tests use."""
    return any(True for _ in _with_statistics(model))


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, normalise each batch by its own statistics; the running ones are kept and not updated."""
    kept = [(module, module.running_mean, module.running_var) for module in _with_statistics(model)]
    for module, _, _ in kept:
        module.running_mean = module.running_var = None
    try:
        yield
    finally:
        for module, mean, var in kept:
            module.running_mean, module.running_var = mean, var


def _with_statistics(model: nn.Module) -> Iterator[_BatchNorm]:
    return (module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None)
